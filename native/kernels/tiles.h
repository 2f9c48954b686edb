// The matrix unit as a few verbs: eight tiles of 16 rows x 64 bytes, and sum += a * b over bytes.
//
//   tile 0 .. 3   sums, 16 x 16 int32
//   tile 4, 5     a: 16 rows x 64 signed bytes;         b: 16 steps x 16 lanes x 4 unsigned bytes
//   tile 6, 7     the same for half as many columns
//
// `Amx` is Intel's AMX-INT8. The compiler does not know what tile instructions read and write, and drops or moves stores
// around its own intrinsics (GCC 12), hence the assembly with memory clobbers. `EmulatedTiles` is its twin in plain loops.
#pragma once

#include <cstdint>
#include <cstring>

namespace {

constexpr int kTileRows = 16, kTileBytes = 64;
constexpr int kA = 4, kB = 5, kHalfA = 6, kHalfB = 7;

// Rows and bytes a row of each tile, as LDTILECFG reads them.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 32, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 8};
};
constexpr TileShapes kTileShapes;

#if defined(__x86_64__)
struct Amx {
  static void begin() { asm volatile("ldtilecfg %0" ::"m"(kTileShapes) : "memory"); }
  static void end() { asm volatile("tilerelease" ::: "memory"); }
  template <int kTile>
  static void clear() {
    asm volatile("tilezero %%tmm%c0" ::"i"(kTile) : "memory");
  }
  template <int kTile>
  static void load(const void* p, size_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kSum, int kLeft, int kRight>
  static void multiply() {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kLeft), "i"(kRight) : "memory");
  }
  template <int kTile>
  static void store(void* p, size_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(stride), "i"(kTile) : "memory");
  }
};
#endif

struct EmulatedTiles {
  static inline thread_local uint8_t tiles[8][kTileRows][kTileBytes];

  static void begin() { std::memset(tiles, 0, sizeof tiles); }
  static void end() {}
  template <int kTile>
  static void clear() {
    std::memset(tiles[kTile], 0, sizeof tiles[kTile]);
  }
  template <int kTile>
  static void load(const void* p, size_t stride) {
    for (int r = 0; r < kTileShapes.rows[kTile]; r++)
      std::memcpy(tiles[kTile][r], static_cast<const uint8_t*>(p) + r * stride, kTileShapes.row_bytes[kTile]);
  }
  template <int kSum, int kLeft, int kRight>
  static void multiply() {
    for (int m = 0; m < kTileRows; m++)
      for (int k = 0; k < kTileShapes.rows[kRight]; k++)
        for (int n = 0; n < kTileRows; n++) {
          int32_t sum;
          std::memcpy(&sum, &tiles[kSum][m][4 * n], 4);
          for (int i = 0; i < 4; i++) sum += static_cast<int8_t>(tiles[kLeft][m][4 * k + i]) * tiles[kRight][k][4 * n + i];
          std::memcpy(&tiles[kSum][m][4 * n], &sum, 4);
        }
  }
  template <int kTile>
  static void store(void* p, size_t stride) {
    for (int r = 0; r < kTileRows; r++) std::memcpy(static_cast<uint8_t*>(p) + r * stride, tiles[kTile][r], kTileBytes);
  }
};

}  // namespace
