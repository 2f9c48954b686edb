// X^T X on tiles of 16 x 16 sums. A step multiplies 32 tokens: the left tile holds, for each of 16 columns, its 32 values side by
// side; the right tile, for each pair of tokens, the pair of each of 16 columns. Either is the other with pairs transposed.
// 2 x 2 tiles of sums use every tile that is loaded twice.
#include "bitwright/gram.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <vector>

#include "bitwright/kernels.h"
#include "parallel.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace bitwright {

#if defined(__x86_64__)

namespace {

constexpr size_t kSide = 16;                  // columns of a tile, and pairs of tokens in a step
constexpr size_t kStep = 2 * kSide;           // tokens
constexpr size_t kSlab = 512;                 // tokens that are laid out in tiles at a time, so that they stay in a core's cache
constexpr size_t kTileWords = kSide * kSide;  // of 32 bits: a pair of bfloat16, or a sum
constexpr size_t kRowBytes = kSide * sizeof(uint32_t);

// Rows and bytes a row of each tile, as LDTILECFG reads them: all eight are 16 rows of 64 bytes.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr TileShapes kShapes;

// Assembly with memory clobbers, because GCC 12 moves stores around its own intrinsics for tiles.
template <int kTile>
void load(const void* p, size_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
void store(void* p, size_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(stride), "i"(kTile) : "memory");
}
template <int kSum, int kLeft, int kRight>
void multiply() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kLeft), "i"(kRight) : "memory");
}

// One thread's tokens: sums of its own, and room for a slab as right and as left tiles, [block of columns][step][tile].
class Worker {
 public:
  explicit Worker(size_t columns)
      : columns_(columns),
        blocks_((columns + kStep - 1) / kStep * 2),
        sums(blocks_ * kSide * blocks_ * kSide),
        right_(blocks_ * (kSlab / kStep) * kTileWords),
        left_(right_.size()) {}

  // Up to kSlab tokens.
  void add(const uint16_t* x, size_t tokens) {
    const size_t steps = (tokens + kStep - 1) / kStep;
    lay_out(x, tokens, steps);
    asm volatile("ldtilecfg %0" ::"m"(kShapes) : "memory");
    for (size_t i = 0; i < blocks_; i += 2)
      for (size_t j = i; j < blocks_; j += 2) add_square(i, j, steps);
    asm volatile("tilerelease" ::: "memory");
  }
  size_t stride() const { return blocks_ * kSide; }

 private:
  size_t columns_, blocks_;

 public:
  std::vector<float> sums;  // (stride, stride)

 private:
  std::vector<uint32_t> right_, left_;

  size_t tile_at(size_t block, size_t step) const { return (block * (kSlab / kStep) + step) * kTileWords; }

  void lay_out(const uint16_t* x, size_t tokens, size_t steps) {
    for (size_t step = 0; step < steps; step++)
      for (size_t block = 0; block < blocks_; block++) {
        uint32_t* tile = right_.data() + tile_at(block, step);
        for (size_t pair = 0; pair < kSide; pair++) lay_out_pair(x, tokens, step * kStep + 2 * pair, block, tile + pair * kSide);
        uint32_t* turned = left_.data() + tile_at(block, step);
        for (size_t row = 0; row < kSide; row++)
          for (size_t column = 0; column < kSide; column++) turned[row * kSide + column] = tile[column * kSide + row];
      }
  }

  // Tokens `token` and the next, of 16 columns; zeros where there is none.
  void lay_out_pair(const uint16_t* x, size_t tokens, size_t token, size_t block, uint32_t* pairs) const {
    const size_t first = block * kSide, count = first < columns_ ? std::min(kSide, columns_ - first) : 0;
    uint16_t even[kSide] = {}, odd[kSide] = {};
    if (token < tokens) std::memcpy(even, x + token * columns_ + first, count * sizeof(uint16_t));
    if (token + 1 < tokens) std::memcpy(odd, x + (token + 1) * columns_ + first, count * sizeof(uint16_t));
    for (size_t k = 0; k < kSide; k++) pairs[k] = even[k] | static_cast<uint32_t>(odd[k]) << 16;
  }

  void add_square(size_t i, size_t j, size_t steps) {
    const size_t row_bytes = stride() * sizeof(float);
    float* at = sums.data() + i * kSide * stride() + j * kSide;
    float* below = at + kSide * stride();
    load<0>(at, row_bytes);
    load<1>(at + kSide, row_bytes);
    load<2>(below, row_bytes);
    load<3>(below + kSide, row_bytes);
    for (size_t step = 0; step < steps; step++) {
      load<4>(left_.data() + tile_at(i, step), kRowBytes);
      load<5>(left_.data() + tile_at(i + 1, step), kRowBytes);
      load<6>(right_.data() + tile_at(j, step), kRowBytes);
      load<7>(right_.data() + tile_at(j + 1, step), kRowBytes);
      multiply<0, 4, 6>();
      multiply<1, 4, 7>();
      multiply<2, 5, 6>();
      multiply<3, 5, 7>();
    }
    store<0>(at, row_bytes);
    store<1>(at + kSide, row_bytes);
    store<2>(below, row_bytes);
    store<3>(below + kSide, row_bytes);
  }
};

}  // namespace

bool has_bfloat16_tiles() {
  static const bool has = [] {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d >> 22 & 1) != 0;  // AMX-BF16
  }();
  return has && std::strcmp(kernels().name, "amx") == 0;  // which has asked the system for the tiles' memory
}

void bfloat16_gram(const uint16_t* x, size_t tokens, size_t columns, float* gram) {
  std::mutex adding;
  std::fill(gram, gram + columns * columns, 0.0f);
  in_parallel((tokens + kSlab - 1) / kSlab, tokens * columns, [&](size_t begin, size_t end) {
    Worker worker(columns);
    for (size_t slab = begin; slab < end; slab++) worker.add(x + slab * kSlab * columns, std::min(kSlab, tokens - slab * kSlab));
    const std::lock_guard<std::mutex> lock(adding);
    for (size_t row = 0; row < columns; row++)
      for (size_t column = row; column < columns; column++)
        gram[row * columns + column] += worker.sums[row * worker.stride() + column];
  });
}

#else

bool has_bfloat16_tiles() { return false; }
void bfloat16_gram(const uint16_t*, size_t, size_t, float*) {}

#endif

}  // namespace bitwright
