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

void unpack_row(const uint8_t* packed, size_t columns, int bits, uint8_t* codes) {
  if (bits == 8) {
    std::memcpy(codes, packed, columns);
    return;
  }
  const auto mask = static_cast<uint8_t>((1 << bits) - 1);
  uint64_t pending = 0;
  int held = 0;
  for (size_t j = 0; j < columns; j++, held -= bits, pending >>= bits) {
    if (held < bits) {
      pending |= static_cast<uint64_t>(*packed++) << held;
      held += 8;
    }
    codes[j] = static_cast<uint8_t>(pending) & mask;
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
