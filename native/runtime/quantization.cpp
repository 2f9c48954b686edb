#include "bitwright/quantization.h"

#include <cstring>

#include "bitwright/kernels.h"
#include "parallel.h"

namespace bitwright {

namespace {

void pack_row(const uint8_t* codes, size_t columns, int bits, uint8_t* packed) {
  uint64_t pending = 0;
  int held = 0;
  for (size_t j = 0; j < columns; j++) {
    pending |= static_cast<uint64_t>(codes[j]) << held;
    for (held += bits; held >= 8; held -= 8, pending >>= 8) *packed++ = static_cast<uint8_t>(pending);
  }
  if (held > 0) *packed = static_cast<uint8_t>(pending);
}

}  // namespace

namespace {

// Eight codes take `kBits` bytes: whole ones, which the compiler can take apart side by side.
template <int kBits>
void unpack_whole(const uint8_t* packed, size_t columns, uint8_t* codes) {
  constexpr uint64_t kMask = (1 << kBits) - 1;
  const size_t whole = columns / 8;
  for (size_t i = 0; i < whole; i++, packed += kBits, codes += 8) {
    uint64_t bits = 0;
    for (int b = 0; b < kBits; b++) bits |= static_cast<uint64_t>(packed[b]) << (8 * b);
    for (int j = 0; j < 8; j++) codes[j] = static_cast<uint8_t>(bits >> (j * kBits) & kMask);
  }
  uint64_t bits = 0;
  const size_t rest = columns % 8;
  for (size_t b = 0; b < (rest * kBits + 7) / 8; b++) bits |= static_cast<uint64_t>(packed[b]) << (8 * b);
  for (size_t j = 0; j < rest; j++) codes[j] = static_cast<uint8_t>(bits >> (j * kBits) & kMask);
}

void unpack_nibbles(const uint8_t* packed, size_t columns, uint8_t* codes) {
  for (size_t i = 0; i < columns / 2; i++) {
    codes[2 * i] = packed[i] & 15;
    codes[2 * i + 1] = packed[i] >> 4;
  }
  if (columns % 2 != 0) codes[columns - 1] = packed[columns / 2] & 15;
}

}  // namespace

void unpack_row(const uint8_t* packed, size_t columns, int bits, uint8_t* codes) {
  switch (bits) {
    case 2:
      return unpack_whole<2>(packed, columns, codes);
    case 3:
      return unpack_whole<3>(packed, columns, codes);
    case 4:
      return unpack_nibbles(packed, columns, codes);
    case 5:
      return unpack_whole<5>(packed, columns, codes);
    case 6:
      return unpack_whole<6>(packed, columns, codes);
    case 7:
      return unpack_whole<7>(packed, columns, codes);
    default:
      std::memcpy(codes, packed, columns);
  }
}

void pack_codes(const uint8_t* codes, size_t rows, size_t columns, int bits, uint8_t* packed) {
  const size_t stride = (columns * bits + 7) / 8;
  in_parallel(rows, rows * columns, [=](size_t begin, size_t end) {
    for (size_t r = begin; r < end; r++) pack_row(codes + r * columns, columns, bits, packed + r * stride);
  });
}

void unpack_codes(const uint8_t* packed, size_t rows, size_t columns, int bits, uint8_t* codes) {
  const size_t stride = (columns * bits + 7) / 8;
  in_parallel(rows, rows * columns, [=](size_t begin, size_t end) {
    for (size_t r = begin; r < end; r++) unpack_row(packed + r * stride, columns, bits, codes + r * columns);
  });
}

void encode_groups(const float* x, size_t groups, size_t n, const Grids& grids, uint8_t* codes) {
  const Kernels& k = kernels();
  in_parallel(groups, groups * n, [&](size_t begin, size_t end) {
    for (size_t g = begin; g < end; g++)
      k.encode_group(x + g * n, static_cast<int>(n), grids.scale[g], grids.zero_point[g], grids.low, grids.high, codes + g * n);
  });
}

void squared_error(const float* x, size_t groups, size_t n, const Grids& grids, float* error) {
  const Kernels& k = kernels();
  in_parallel(groups, groups * n, [&](size_t begin, size_t end) {
    for (size_t g = begin; g < end; g++)
      error[g] = k.squared_error(x + g * n, static_cast<int>(n), grids.scale[g], grids.zero_point[g], grids.low, grids.high);
  });
}

void refit_scale(const float* x, size_t groups, size_t n, const Grids& grids, float* scale) {
  const Kernels& k = kernels();
  in_parallel(groups, groups * n, [&](size_t begin, size_t end) {
    for (size_t g = begin; g < end; g++) {
      float xq = 0, qq = 0;
      k.scale_sums(x + g * n, static_cast<int>(n), grids.scale[g], grids.zero_point[g], grids.low, grids.high, &xq, &qq);
      scale[g] = qq > 0 && xq != 0 ? xq / qq : grids.scale[g];
    }
  });
}

}  // namespace bitwright
