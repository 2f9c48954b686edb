#include "bitwright/ceilings.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>

#include "bitwright/buffer.h"
#include "bitwright/thread_team.h"

namespace bitwright {

double read_bandwidth(size_t bytes, int threads, double seconds) {
  using Clock = std::chrono::steady_clock;
  Buffer buffer(bytes);
  std::memset(buffer.as<uint8_t>(), 1, bytes);
  ThreadTeam team(threads);
  std::atomic<uint64_t> sink{0};
  double best = 0;
  const auto elapsed = [](Clock::time_point from) { return std::chrono::duration<double>(Clock::now() - from).count(); };
  for (const auto start = Clock::now(); best == 0 || elapsed(start) < seconds;) {
    const auto pass = Clock::now();
    team.run([&](int thread) {
      const size_t words = bytes / sizeof(uint64_t), begin = words * thread / team.size(),
                   end = words * (thread + 1) / team.size();
      const uint64_t* data = buffer.as<uint64_t>();
      uint64_t sums[16] = {};  // independent sums, so that only memory is waited for
      for (size_t i = begin; i + 16 <= end; i += 16)
        for (int j = 0; j < 16; j++) sums[j] += data[i + j];
      for (const uint64_t sum : sums) sink += sum;
    });
    best = std::max(best, static_cast<double>(bytes) / elapsed(pass));
  }
  return best;
}

}  // namespace bitwright
