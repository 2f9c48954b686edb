// What this machine gives: its threads, the fastest team of them, and its ceilings.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

#include "bitwright/ceilings.h"
#include "bitwright/kernels.h"
#include "bitwright/thread_team.h"
#include "check.h"

using namespace bitwright;

namespace {

void check_team() {
  for (const int threads : {1, 2, 5}) {
    ThreadTeam team(threads);
    std::vector<int> passes(threads);
    std::atomic<int> behind{0};
    for (int round = 0; round < 200; round++)
      team.run([&](int thread) {
        for (int step = 0; step < 5; step++) {
          passes[thread]++;
          team.barrier();
          for (const int other : passes) behind += other != round * 5 + step + 1;
          team.barrier();
        }
      });
    CHECK(behind == 0);
    bool thrown = false;
    try {
      team.run([&](int thread) {
        if (thread == threads - 1) throw std::runtime_error("thrown on purpose");
      });
    } catch (const std::runtime_error&) {
      thrown = true;
    }
    CHECK(thrown);
  }
}

// Teams that are really timed, and which of them is taken.
void check_fastest_threads() {
  const std::vector<TeamTime> teams = time_teams(3);
  CHECK(teams.size() == 3);
  for (size_t i = 0; i < teams.size(); i++)
    CHECK(teams[i].threads == static_cast<int>(i) + 1 && teams[i].seconds > 0 && std::isfinite(teams[i].seconds));
  const auto least = std::min_element(teams.begin(), teams.end(), [](auto& a, auto& b) { return a.seconds < b.seconds; });
  const int found = fewest_fast(teams);
  CHECK(1 <= found && found <= 3 && teams[found - 1].seconds * 0.95 <= least->seconds);
  CHECK(fewest_fast({{1, 3.0}, {2, 2.0}, {4, 1.95}, {7, 1.0}, {8, 0.96}}) == 7);
  CHECK(fewest_fast({{1, 1.0}, {2, 4.0}}) == 1);
  CHECK(time_teams(1).size() == 1 && time_teams(1)[0].threads == 1);
  CHECK(1 <= fastest_threads() && fastest_threads() <= available_cores() && fastest_threads() == fastest_threads());
}

// Every way to read reads every word once, and the plain one is among them.
void check_readings() {
  const auto bytes = random_bytes(8 * 1003, 5);
  std::vector<uint64_t> words(1003);
  std::memcpy(words.data(), bytes.data(), bytes.size());
  CHECK(readings()[0].streams == 1 && readings()[0].ahead == 0);
  for (const Reading& reading : readings())
    for (const size_t count : {0, 5, 64, 500, 1003})
      CHECK(reading.sum(words.data(), count) == std::accumulate(words.begin(), words.begin() + count, uint64_t{0}));
  const std::vector<double> found = read_bandwidths(size_t{4} << 20, 2, 0.001);
  CHECK(found.size() == readings().size() && *std::min_element(found.begin(), found.end()) > 0);
  CHECK(read_bandwidth(size_t{4} << 20, 2, 0.001) > 0);
}

// Every ceiling has an instruction behind it, that instruction runs here, and it is one of the set in use.
void check_ceilings() {
  const std::pair<std::string, std::string> best[] = {
      {"amx", "amx tdpbssd"}, {"avx512vnni", "avx512 vpdpbusd"}, {"avxvnni", "avx vpdpbusd"}, {"avx2", "avx2 vpmaddubsw"},
      {"i8mm", "i8mm smmla"}, {"dotprod", "dotprod sdot"},       {"neon", "neon smull"}};
  for (const auto& [set, instruction] : best)
    if (set == kernels().name) CHECK(matrix_instruction(MatrixType::int8) == instruction);
  if (kernels().name == std::string("avx2")) CHECK(matrix_instruction(MatrixType::bf16) == nullptr);
  for (const MatrixType type : {MatrixType::int8, MatrixType::bf16})
    CHECK((matrix_peak(type, 2, 0.001) > 0) == (matrix_instruction(type) != nullptr));
}

}  // namespace

std::vector<Case> machine_cases() {
  return {{"thread team", check_team},
          {"fastest threads", check_fastest_threads},
          {"ways to read", check_readings},
          {"ceilings", check_ceilings}};
}
