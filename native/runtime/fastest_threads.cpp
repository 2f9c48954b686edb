// How many threads to decode with: the fewest that are about as fast as the best, measured on stages of memory reads with
// barriers between, which is what a token step is.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "bitwright/buffer.h"
#include "bitwright/thread_team.h"

namespace bitwright {

namespace {

constexpr int kStages = 120, kTries = 6;      // a small model's barriers of one token
constexpr size_t kRead = size_t{32} << 10;    // words a stage: 256 kB
constexpr size_t kBufferWords = kRead * 128;  // 32 MB
constexpr double kWorthIt = 0.95;             // more threads must save a twentieth

double seconds_of_token(ThreadTeam& team, const uint64_t* data, std::vector<uint64_t>& sinks) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  team.run([&](int thread) {
    uint64_t sums[8] = {};
    for (int stage = 0; stage < kStages; stage++) {
      const size_t offset = stage * kRead % kBufferWords;
      const size_t begin = offset + kRead * thread / team.size(), end = offset + kRead * (thread + 1) / team.size();
      for (size_t i = begin; i + 8 <= end; i += 8)
        for (int j = 0; j < 8; j++) sums[j] += data[i + j];
      team.barrier();
    }
    for (const uint64_t sum : sums) sinks[thread] += sum;
  });
  return std::chrono::duration<double>(Clock::now() - start).count();
}

int measure() {
  const int cores = available_cores();
  if (cores <= 2) return cores;  // measuring would take longer than it could save
  return fewest_fast(time_teams(cores));
}

}  // namespace

std::vector<TeamTime> time_teams(int most) {
  Buffer buffer(kBufferWords * sizeof(uint64_t));
  std::memset(buffer.as<uint8_t>(), 1, buffer.size());
  std::vector<TeamTime> teams = {{1, std::numeric_limits<double>::infinity()}};  // 1, 2, 4, 7, 11, ..., all
  while (teams.back().threads < most)
    teams.push_back({std::min(most, teams.back().threads * 3 / 2 + 1), std::numeric_limits<double>::infinity()});
  for (int attempt = 0; attempt < kTries; attempt++)  // by turns: what else the machine does meets all of them
    for (auto& [threads, seconds] : teams) {
      ThreadTeam team(threads);
      std::vector<uint64_t> sinks(threads);
      seconds = std::min(seconds, seconds_of_token(team, buffer.as<uint64_t>(), sinks));
    }
  return teams;
}

int fewest_fast(const std::vector<TeamTime>& teams) {
  TeamTime best = teams.front();
  for (const TeamTime& team : teams)
    if (team.seconds < kWorthIt * best.seconds) best = team;
  return best.threads;
}

int fastest_threads() {
  static const int found = measure();
  return found;
}

}  // namespace bitwright
