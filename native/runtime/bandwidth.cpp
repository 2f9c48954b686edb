// The read bandwidth: the best of several ways to read the same memory. A plain loop has those lines on their way that the
// hardware asks for ahead of it, too few to keep memory busy where the working set is beyond most of the cache; a program that
// asks for lines itself, of one stream or of several, has more. What is fastest depends on the machine, so all are tried.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>

#include "bitwright/buffer.h"
#include "bitwright/ceilings.h"
#include "bitwright/thread_team.h"

namespace bitwright {

namespace {

constexpr size_t kLine = 64 / sizeof(uint64_t);  // words of a cache line

// The sum of all words: kStreams equal parts of them in step, each asking for the line kAhead bytes ahead.
template <int kStreams, int kAhead>
uint64_t sum_words(const uint64_t* words, size_t count) {
  const size_t each = count / kStreams / kLine * kLine;
  uint64_t sums[kLine] = {};  // independent sums, so that only memory is waited for
  for (size_t at = 0; at < each; at += kLine)
    for (int stream = 0; stream < kStreams; stream++) {
      const uint64_t* line = words + stream * each + at;
      if constexpr (kAhead > 0) __builtin_prefetch(reinterpret_cast<const char*>(line) + kAhead);
      for (size_t i = 0; i < kLine; i++) sums[i] += line[i];
    }
  return std::accumulate(words + kStreams * each, words + count, std::accumulate(sums, sums + kLine, uint64_t{0}));
}

template <int kStreams, int kAhead>
constexpr Reading reading() {
  return {kStreams, kAhead, sum_words<kStreams, kAhead>};
}

constexpr Reading kReadings[] = {reading<1, 0>(), reading<1, 8192>(), reading<2, 4096>(), reading<4, 2048>(), reading<8, 2048>()};

}  // namespace

std::span<const Reading> readings() { return kReadings; }

std::vector<double> read_bandwidths(size_t bytes, int threads, double seconds) {
  using Clock = std::chrono::steady_clock;
  Buffer buffer(bytes);
  std::memset(buffer.as<uint8_t>(), 1, bytes);
  ThreadTeam team(threads);
  std::atomic<uint64_t> sink{0};
  std::vector<double> best(readings().size());
  const auto elapsed = [](Clock::time_point from) { return std::chrono::duration<double>(Clock::now() - from).count(); };
  const auto start = Clock::now();
  do {
    for (size_t way = 0; way < best.size(); way++) {
      const auto pass = Clock::now();
      team.run([&](int thread) {
        const size_t words = bytes / sizeof(uint64_t), begin = words * thread / team.size(),
                     end = words * (thread + 1) / team.size();
        sink += kReadings[way].sum(buffer.as<uint64_t>() + begin, end - begin);
      });
      best[way] = std::max(best[way], static_cast<double>(bytes) / elapsed(pass));
    }
  } while (elapsed(start) < seconds);
  return best;
}

double read_bandwidth(size_t bytes, int threads, double seconds) {
  const std::vector<double> found = read_bandwidths(bytes, threads, seconds);
  return *std::max_element(found.begin(), found.end());
}

}  // namespace bitwright
