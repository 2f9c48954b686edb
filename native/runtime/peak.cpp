// The peak of the matrix units: loops of the best dot product over registers alone, with enough independent sums that
// only the unit itself is waited for; the best of those that the instruction set in use has (BITWRIGHT_ISA forces one). Intel 64
// and IA-32 Architectures Software Developer's Manual, volume 2; Arm Architecture Reference Manual, chapter C7.
//
// Each loop is inline assembly of its one instruction: the compiler can neither drop nor hoist it, no file needs an
// instruction set's flags, and nothing depends on how a compiler treats tile registers.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

#include "bitwright/ceilings.h"
#include "bitwright/kernels.h"
#include "bitwright/thread_team.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace bitwright {

namespace {

struct Unit {
  MatrixType type;
  const char* set;  // the least row of the dispatch table that may use it; every processor has the scalar row's
  const char* instruction;
  double operations;  // of one round
  void (*run)(int rounds);
  bool (*supported)();
};

#if defined(__x86_64__)

bool has_amx(int feature_bit) {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr int kTiles = 24, kRequestPermission = 0x1023, kTileData = 18;  // arch_prctl: ARCH_REQ_XCOMP_PERM
  if ((d >> kTiles & 1) == 0 || (d >> feature_bit & 1) == 0) return false;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
bool has_amx_int8() { return has_amx(25); }
bool has_amx_bf16() { return has_amx(22); }
bool has_avx512_bf16() { return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bf16"); }
bool has_avx512_vnni() { return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vnni"); }
bool has_avx_vnni() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("avxvnni"); }
bool has_avx2() { return __builtin_cpu_supports("avx2"); }
bool always() { return true; }

struct TileConfiguration {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfiguration) == 64);

// Four tiles of sums, two of the left and two of the right factor. The memory clobber keeps the stores to the
// configuration alive: g++ 12 drops them where it sees only a pointer.
#define BITWRIGHT_TILES(name, dot)                                                                                     \
  void name(int rounds) {                                                                                              \
    const TileConfiguration configuration;                                                                             \
    asm volatile("ldtilecfg (%0)" : : "r"(&configuration) : "memory");                                                 \
    asm volatile(                                                                                                      \
        "tilezero %%tmm0\n tilezero %%tmm1\n tilezero %%tmm2\n tilezero %%tmm3\n"                                      \
        "tilezero %%tmm4\n tilezero %%tmm5\n tilezero %%tmm6\n tilezero %%tmm7\n" ::                                   \
            : "memory");                                                                                               \
    for (int i = 0; i < rounds; i++)                                                                                   \
      asm volatile(dot " %%tmm6, %%tmm4, %%tmm0\n" dot " %%tmm7, %%tmm4, %%tmm1\n" dot " %%tmm6, %%tmm5, %%tmm2\n" dot \
                       " %%tmm7, %%tmm5, %%tmm3\n" ::                                                                  \
                           : "memory");                                                                                \
    asm volatile("tilerelease" ::: "memory");                                                                          \
  }
BITWRIGHT_TILES(tiles_int8, "tdpbssd")
BITWRIGHT_TILES(tiles_bf16, "tdpbf16ps")
#undef BITWRIGHT_TILES

// Twelve sums in registers 0 to 11, the factors in 14 and 15. All are zero, so that bf16 meets no slow number.
#define BITWRIGHT_TWELVE(dot, r) \
  dot(r, 0) dot(r, 1) dot(r, 2) dot(r, 3) dot(r, 4) dot(r, 5) dot(r, 6) dot(r, 7) dot(r, 8) dot(r, 9) dot(r, 10) dot(r, 11)
#define BITWRIGHT_CLEAR(r, i) "vpxor %%xmm" #i ", %%xmm" #i ", %%xmm" #i "\n"
#define BITWRIGHT_CLOBBERS                                                                                                     \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", \
      "xmm15"
#define BITWRIGHT_LOOP(name, r, clear, dot, end)                                              \
  void name(int rounds) {                                                                     \
    asm volatile(BITWRIGHT_TWELVE(clear, r) clear(r, 14)                                      \
                     clear(r, 15) "1:\n" BITWRIGHT_TWELVE(dot, r) "sub $1, %0\n jnz 1b\n" end \
                 : "+r"(rounds)                                                               \
                 :                                                                            \
                 : "cc", BITWRIGHT_CLOBBERS);                                                 \
  }
#define BITWRIGHT_VECTORS(name, r, dot) BITWRIGHT_LOOP(name, r, BITWRIGHT_CLEAR, dot, "vzeroupper\n")
#define BITWRIGHT_VNNI(r, i) "vpdpbusd %%" r "15, %%" r "14, %%" r #i "\n"
#define BITWRIGHT_VEX_VNNI(r, i) "%{vex%} vpdpbusd %%" r "15, %%" r "14, %%" r #i "\n"
#define BITWRIGHT_BF16(r, i) "vdpbf16ps %%" r "15, %%" r "14, %%" r #i "\n"
// AVX2 multiplies bytes into sums of 16 bits; how often those are widened depends on the codes' width, so that is left out.
#define BITWRIGHT_MADDUBS(r, i) "vpmaddubsw %%" r "15, %%" r "14, %%" r "13\n vpaddw %%" r "13, %%" r #i ", %%" r #i "\n"
BITWRIGHT_VECTORS(avx512_vnni, "zmm", BITWRIGHT_VNNI)
BITWRIGHT_VECTORS(avx512_bf16, "zmm", BITWRIGHT_BF16)
BITWRIGHT_VECTORS(avx_vnni, "ymm", BITWRIGHT_VEX_VNNI)
BITWRIGHT_VECTORS(avx2_maddubs, "ymm", BITWRIGHT_MADDUBS)
// What plain C++ may be compiled to everywhere: pairs of 16 bits.
#define BITWRIGHT_SSE_CLEAR(r, i) "pxor %%" r #i ", %%" r #i "\n"
#define BITWRIGHT_MADDWD(r, i) "movdqa %%" r "14, %%" r "13\n pmaddwd %%" r "15, %%" r "13\n paddd %%" r "13, %%" r #i "\n"
BITWRIGHT_LOOP(sse2_maddwd, "xmm", BITWRIGHT_SSE_CLEAR, BITWRIGHT_MADDWD, "")
#undef BITWRIGHT_MADDWD
#undef BITWRIGHT_SSE_CLEAR
#undef BITWRIGHT_MADDUBS
#undef BITWRIGHT_BF16
#undef BITWRIGHT_VEX_VNNI
#undef BITWRIGHT_VNNI
#undef BITWRIGHT_VECTORS
#undef BITWRIGHT_LOOP
#undef BITWRIGHT_CLOBBERS
#undef BITWRIGHT_CLEAR
#undef BITWRIGHT_TWELVE

#elif defined(__aarch64__)

bool has_i8mm() { return getauxval(AT_HWCAP2) & HWCAP2_I8MM; }
bool has_bf16() { return getauxval(AT_HWCAP2) & HWCAP2_BF16; }
bool has_dot() { return getauxval(AT_HWCAP) & HWCAP_ASIMDDP; }
bool always() { return true; }

// Twelve sums in registers 0 to 11, the factors in 14 and 15. `.arch` is what the assembler may accept, not what runs.
#define BITWRIGHT_TWELVE(dot) dot(0) dot(1) dot(2) dot(3) dot(4) dot(5) dot(6) dot(7) dot(8) dot(9) dot(10) dot(11)
#define BITWRIGHT_CLEAR(i) "movi v" #i ".16b, #0\n"
#define BITWRIGHT_VECTORS(name, dot)                                                                                     \
  void name(int rounds) {                                                                                                \
    asm volatile(".arch armv8.6-a\n" BITWRIGHT_TWELVE(BITWRIGHT_CLEAR) BITWRIGHT_CLEAR(14)                               \
                     BITWRIGHT_CLEAR(15) "1:\n" BITWRIGHT_TWELVE(dot) "subs %w0, %w0, #1\n b.ne 1b\n"                    \
                 : "+r"(rounds)                                                                                          \
                 :                                                                                                       \
                 : "cc", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v14", "v15"); \
  }
#define BITWRIGHT_SMMLA(i) "smmla v" #i ".4s, v14.16b, v15.16b\n"
#define BITWRIGHT_SDOT(i) "sdot v" #i ".4s, v14.16b, v15.16b\n"
#define BITWRIGHT_BFMMLA(i) "bfmmla v" #i ".4s, v14.8h, v15.8h\n"
#define BITWRIGHT_SMULL(i) "smull v12.8h, v14.8b, v15.8b\n sadalp v" #i ".4s, v12.8h\n"
BITWRIGHT_VECTORS(smmla, BITWRIGHT_SMMLA)
BITWRIGHT_VECTORS(sdot, BITWRIGHT_SDOT)
BITWRIGHT_VECTORS(bfmmla, BITWRIGHT_BFMMLA)
BITWRIGHT_VECTORS(neon_smull, BITWRIGHT_SMULL)
#undef BITWRIGHT_SMULL
#undef BITWRIGHT_BFMMLA
#undef BITWRIGHT_SDOT
#undef BITWRIGHT_SMMLA
#undef BITWRIGHT_VECTORS
#undef BITWRIGHT_CLEAR
#undef BITWRIGHT_TWELVE

#endif

// Best first. Operations of a round: instructions x multiply-adds of one x 2.
constexpr Unit kUnits[] = {
#if defined(__x86_64__)
    {MatrixType::int8, "amx", "amx tdpbssd", 4 * (16 * 16 * 64) * 2, tiles_int8, has_amx_int8},
    {MatrixType::int8, "avx512vnni", "avx512 vpdpbusd", 12 * 64 * 2, avx512_vnni, has_avx512_vnni},
    {MatrixType::int8, "avxvnni", "avx vpdpbusd", 12 * 32 * 2, avx_vnni, has_avx_vnni},
    {MatrixType::int8, "avx2", "avx2 vpmaddubsw", 12 * 32 * 2, avx2_maddubs, has_avx2},
    {MatrixType::int8, "scalar", "sse2 pmaddwd", 12 * 8 * 2, sse2_maddwd, always},
    {MatrixType::bf16, "amx", "amx tdpbf16ps", 4 * (16 * 16 * 32) * 2, tiles_bf16, has_amx_bf16},
    {MatrixType::bf16, "avx512vnni", "avx512 vdpbf16ps", 12 * 32 * 2, avx512_bf16, has_avx512_bf16},
#elif defined(__aarch64__)
    {MatrixType::int8, "i8mm", "i8mm smmla", 12 * 32 * 2, smmla, has_i8mm},
    {MatrixType::int8, "dotprod", "dotprod sdot", 12 * 16 * 2, sdot, has_dot},
    {MatrixType::int8, "scalar", "neon smull", 12 * 8 * 2, neon_smull, always},
    {MatrixType::bf16, "i8mm", "bf16 bfmmla", 12 * 16 * 2, bfmmla, has_bf16},
#else
    {MatrixType::int8, "scalar", "", 0, nullptr, [] { return false; }},
#endif
};

const Unit* unit_of(MatrixType type) {
  for (const Unit& unit : kUnits)
    if (unit.type == type && includes_set(unit.set) && unit.supported()) return &unit;
  return nullptr;
}

}  // namespace

const char* matrix_instruction(MatrixType type) {
  const Unit* unit = unit_of(type);
  return unit == nullptr ? nullptr : unit->instruction;
}

double matrix_peak(MatrixType type, int threads, double seconds) {
  using Clock = std::chrono::steady_clock;
  constexpr int kRounds = 1 << 15;  // a millisecond at most: a pass that nothing disturbs is soon found
  const Unit* unit = unit_of(type);
  if (unit == nullptr) return 0;
  const auto elapsed = [](Clock::time_point from) { return std::chrono::duration<double>(Clock::now() - from).count(); };
  ThreadTeam team(threads);
  double best = 0;
  for (const auto start = Clock::now(); best == 0 || elapsed(start) < seconds;) {
    const auto pass = Clock::now();
    team.run([&](int) { unit->run(kRounds); });
    best = std::max(best, kRounds * unit->operations * team.size() / elapsed(pass));
  }
  return best;
}

}  // namespace bitwright
