// Quantizing whole tensors: packing codes, and groups of weights against their grids. Threaded over rows or groups.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bitwright {

// Rows of codes as little-endian bit streams: code j occupies bits j * bits .. of its row.
void pack_codes(const uint8_t* codes, size_t rows, size_t columns, int bits, uint8_t* packed);
void unpack_codes(const uint8_t* packed, size_t rows, size_t columns, int bits, uint8_t* codes);
void unpack_row(const uint8_t* packed, size_t columns, int bits, uint8_t* codes);

// A grid for each group of n consecutive values.
struct Grids {
  const float* scale;       // (groups,)
  const float* zero_point;  // (groups,)
  int low, high;
};
void encode_groups(const float* x, size_t groups, size_t n, const Grids& grids, uint8_t* codes);
void squared_error(const float* x, size_t groups, size_t n, const Grids& grids, float* error);
// The scale of least squared error for the levels that the given grid picks; the given one where all levels are zero.
void refit_scale(const float* x, size_t groups, size_t n, const Grids& grids, float* scale);

enum class ScaleRounding : int { fp32, fp16, bf16, power_of_two };

// The search that src/bitwright/fitting/mse.py describes, group by group while its values are in the nearest cache.
struct MseSearch {
  int low, high;
  bool affine;
  ScaleRounding rounding;
  const float* shrink;  // factors on the widest grid, the widest first
  int shrinks, refits;
};
// A scale is infinite where no candidate fits its type.
void fit_mse(const float* x, size_t groups, size_t n, const MseSearch& search, float* scale, float* zero_point);

}  // namespace bitwright
