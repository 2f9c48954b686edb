// Picks one row of the dispatch table: the best this machine supports, or the one BITWRIGHT_ISA names.
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "bitwright/kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace bitwright {

extern const Kernels kKernels_scalar;
#if defined(__x86_64__)
extern const Kernels kKernels_avx2, kKernels_avxvnni, kKernels_avx512vnni, kKernels_amx;
#elif defined(__aarch64__)
extern const Kernels kKernels_neon, kKernels_dotprod, kKernels_i8mm;
#endif

namespace {

struct Entry {
  const Kernels* kernels;
  bool (*supported)();
};

bool always() { return true; }

#if defined(__x86_64__)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"); }
bool has_avxvnni() { return has_avx2() && __builtin_cpu_supports("avxvnni"); }
bool has_avx512vnni() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
}
// CPUID leaf 7: AMX-TILE, AMX-INT8 and AMX-BF16. The kernel must also grant the process the tiles' memory, once.
bool has_amx() {
  unsigned a, b, c, d;
  constexpr unsigned kNeeded = 1u << 22 | 1u << 24 | 1u << 25;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  if (!has_avx512vnni() || !__builtin_cpu_supports("avx512bf16") || !__builtin_cpu_supports("avx512vbmi") ||
      !__get_cpuid_count(7, 0, &a, &b, &c, &d))
    return false;
  if ((d & kNeeded) != kNeeded) return false;
  static const bool granted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return granted;
}
#elif defined(__aarch64__)
bool has_dotprod() { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }
bool has_i8mm() { return has_dotprod() && (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0; }
#endif

// Best first, scalar last.
constexpr Entry kTable[] = {
#if defined(__x86_64__)
    {&kKernels_amx, has_amx},         {&kKernels_avx512vnni, has_avx512vnni},
    {&kKernels_avxvnni, has_avxvnni}, {&kKernels_avx2, has_avx2},
#elif defined(__aarch64__)
    {&kKernels_i8mm, has_i8mm},
    {&kKernels_dotprod, has_dotprod},
    {&kKernels_neon, always},
#endif
    {&kKernels_scalar, always},
};

const Kernels& choose() {
  const char* forced = std::getenv("BITWRIGHT_ISA");
  if (forced == nullptr || *forced == '\0') {
    for (const Entry& entry : kTable)
      if (entry.supported()) return *entry.kernels;
  }
  if (const Kernels* found = kernels_named(forced)) return *found;
  std::string names;
  for (const Entry& entry : kTable)
    if (entry.supported()) names += (names.empty() ? "" : ", ") + std::string(entry.kernels->name);
  throw std::runtime_error("BITWRIGHT_ISA=" + std::string(forced) + " is unknown or not supported here; this machine has " +
                           names);
}

}  // namespace

#if defined(__x86_64__)
const size_t kFetchAhead = (__builtin_cpu_init(), __builtin_cpu_is("amd")) ? 1536 : 4096;
#else
const size_t kFetchAhead = 4096;
#endif

const Kernels* kernels_named(const char* name) {
  for (const Entry& entry : kTable)
    if (std::strcmp(entry.kernels->name, name) == 0) return entry.supported() ? entry.kernels : nullptr;
  return nullptr;
}

int supported_kernels(const char** names, int capacity) {
  int count = 0;
  for (const Entry& entry : kTable)
    if (entry.supported() && count < capacity) names[count++] = entry.kernels->name;
  return count;
}

bool includes_set(const char* name) {
  bool reached = false;
  for (const Entry& entry : kTable) {
    reached |= entry.kernels == &kernels();
    if (std::strcmp(entry.kernels->name, name) == 0) return reached;
  }
  return false;
}

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace bitwright
