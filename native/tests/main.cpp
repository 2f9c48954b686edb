#include "check.h"

int main() {
  int passed = 0, failed = 0;
  for (const auto& cases : {kernel_cases(), attention_cases(), runtime_cases()})
    for (const Case& one : cases) {
      failures = 0;
      one.body();
      (failures == 0 ? passed : failed)++;
      if (failures != 0) std::printf("FAILED %s\n", one.name.c_str());
    }
  std::printf("native: %d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
