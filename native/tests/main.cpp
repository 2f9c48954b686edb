// Runs every case but those whose names contain one of the arguments.
#include <algorithm>

#include "bitwright/kernels.h"
#include "check.h"

int main(int count, char** arguments) {
  const std::vector<std::string> without(arguments + 1, arguments + count);
  const auto left_out = [&](const Case& one) {
    return std::any_of(without.begin(), without.end(),
                       [&](const std::string& part) { return one.name.find(part) != std::string::npos; });
  };
  int passed = 0, failed = 0;
  for (const auto& cases : {kernel_cases(), attention_cases(), matrix_attention_cases(), machine_cases(), runtime_cases()})
    for (const Case& one : cases) {
      if (left_out(one)) continue;
      failures = 0;
      one.body();
      (failures == 0 ? passed : failed)++;
      if (failures != 0) std::printf("FAILED %s\n", one.name.c_str());
    }
  std::printf("native tests on %s: %d passed, %d failed\n", bitwright::kernels().name, passed, failed);
  return failed == 0 ? 0 : 1;
}
