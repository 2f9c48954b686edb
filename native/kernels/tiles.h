// The matrix unit as a few verbs: eight tiles of up to 16 rows x 64 bytes, and sum += a * b over bytes or pairs of bf16.
//
//   tile 0 .. 3   sums, rows x 16 lanes, int32 or float
//   tile 4, 5     a: rows x `bytes` of columns
//   tile 6, 7     b: bytes / 4 steps x 16 lanes x 4 bytes of columns
//
// `Amx` is Intel's AMX-INT8 and AMX-BF16. The compiler does not know what tile instructions read and write, and drops or
// moves stores around its own intrinsics (GCC 12), hence the assembly with memory clobbers. `EmulatedTiles` is its twin in
// plain loops.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace {

constexpr int kTileRows = 16, kTileBytes = 64, kTileLanes = 16;
constexpr int kA = 4, kB = 6;
constexpr size_t kTileSize = static_cast<size_t>(kTileRows) * kTileBytes;

// Rows and bytes a row of each tile, as LDTILECFG reads them.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
  TileShapes(int rows_of_a, int bytes) {
    for (int i = 0; i < 8; i++) {
      row_bytes[i] = static_cast<uint16_t>(i == kA || i == kA + 1 ? bytes : kTileBytes);
      rows[i] = static_cast<uint8_t>(i >= kB ? bytes / 4 : rows_of_a);
    }
  }
};

#if defined(__x86_64__)
struct Amx {
  static void begin(const TileShapes& shapes) { asm volatile("ldtilecfg %0" ::"m"(shapes) : "memory"); }
  static void end() { asm volatile("tilerelease" ::: "memory"); }
  template <int kTile>
  static void clear() {
    asm volatile("tilezero %%tmm%c0" ::"i"(kTile) : "memory");
  }
  template <int kTile>
  static void load(const void* p, size_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride), "i"(kTile) : "memory");
  }
  // Signed a times unsigned b, or signed ones.
  template <int kSum, int kLeft, int kRight, bool kSigned>
  static void multiply() {
    if constexpr (kSigned)
      asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kLeft), "i"(kRight) : "memory");
    else
      asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kLeft), "i"(kRight) : "memory");
  }
  template <int kSum, int kLeft, int kRight>
  static void multiply_bf16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kLeft), "i"(kRight) : "memory");
  }
  template <int kTile>
  static void store(void* p, size_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(stride), "i"(kTile) : "memory");
  }
};
#endif

struct EmulatedTiles {
  static inline thread_local uint8_t tiles[8][kTileRows][kTileBytes];
  static inline thread_local TileShapes shapes{kTileRows, kTileBytes};

  static void begin(const TileShapes& wanted) { shapes = wanted, std::memset(tiles, 0, sizeof tiles); }
  static void end() {}
  template <int kTile>
  static void clear() {
    std::memset(tiles[kTile], 0, sizeof tiles[kTile]);
  }
  template <int kTile>
  static void load(const void* p, size_t stride) {
    for (int r = 0; r < shapes.rows[kTile]; r++)
      std::memcpy(tiles[kTile][r], static_cast<const uint8_t*>(p) + r * stride, shapes.row_bytes[kTile]);
  }
  template <int kSum, int kLeft, int kRight, bool kSigned>
  static void multiply() {
    for (int m = 0; m < shapes.rows[kSum]; m++)
      for (int k = 0; k < shapes.rows[kRight]; k++)
        for (int n = 0; n < kTileLanes; n++) {
          int32_t sum;
          std::memcpy(&sum, &tiles[kSum][m][4 * n], 4);
          for (int i = 0; i < 4; i++) {
            const uint8_t b = tiles[kRight][k][4 * n + i];
            sum += static_cast<int8_t>(tiles[kLeft][m][4 * k + i]) * (kSigned ? static_cast<int8_t>(b) : b);
          }
          std::memcpy(&tiles[kSum][m][4 * n], &sum, 4);
        }
  }
  // Even and odd columns are added up apart, then to the sum.
  template <int kSum, int kLeft, int kRight>
  static void multiply_bf16() {
    for (int m = 0; m < shapes.rows[kSum]; m++)
      for (int n = 0; n < kTileLanes; n++) {
        float sum, halves[2] = {};
        std::memcpy(&sum, &tiles[kSum][m][4 * n], 4);
        for (int k = 0; k < shapes.rows[kRight]; k++)
          for (int i = 0; i < 2; i++) halves[i] += bf16(&tiles[kLeft][m][4 * k + 2 * i]) * bf16(&tiles[kRight][k][4 * n + 2 * i]);
        sum += halves[0] + halves[1];
        std::memcpy(&tiles[kSum][m][4 * n], &sum, 4);
      }
  }
  template <int kTile>
  static void store(void* p, size_t stride) {
    for (int r = 0; r < shapes.rows[kTile]; r++) std::memcpy(static_cast<uint8_t*>(p) + r * stride, tiles[kTile][r], kTileBytes);
  }

 private:
  static float bf16(const uint8_t* p) {
    uint32_t bits = static_cast<uint32_t>(p[0]) << 16 | static_cast<uint32_t>(p[1]) << 24;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
  }
};

// Runs visit<t>() for each of the first `count` of four tiles.
template <class Visit>
inline void for_tiles(int count, Visit visit) {
  visit.template operator()<0>();
  if (count > 1) visit.template operator()<1>();
  if (count > 2) visit.template operator()<2>();
  if (count > 3) visit.template operator()<3>();
}

// The sums of one or two tiles of rows times one or two panels, all over `steps` tiles that follow one another: row tile t
// and panel p into tile t * kPanels + p. `multiply` is one of the verbs, `after` is called between the steps.
template <class Tiles, int kTiles, int kPanels, class Multiply, class After>
inline void sum_products(const void* rows, size_t next_tile, const void* first_panel, const void* last_panel, int steps,
                         const Multiply& multiply, const After& after) {
  const auto *a = static_cast<const uint8_t*>(rows), *left = static_cast<const uint8_t*>(first_panel),
             *right = static_cast<const uint8_t*>(last_panel);
  for_tiles(kTiles * kPanels, []<int kTile>() { Tiles::template clear<kTile>(); });
  for (int s = 0; s < steps; s++, a += kTileSize, left += kTileSize, right += kTileSize) {
    Tiles::template load<kB>(left, kTileBytes);
    Tiles::template load<kA>(a, kTileBytes);
    multiply.template operator()<0, kA, kB>();
    if constexpr (kPanels == 2) {
      Tiles::template load<kB + 1>(right, kTileBytes);
      multiply.template operator()<1, kA, kB + 1>();
    }
    if constexpr (kTiles == 2) {
      Tiles::template load<kA + 1>(a + next_tile, kTileBytes);
      multiply.template operator()<kPanels, kA + 1, kB>();
      if constexpr (kPanels == 2) multiply.template operator()<3, kA + 1, kB + 1>();
    }
    after();
  }
}

}  // namespace
