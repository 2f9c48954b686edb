// Least squared error over candidate grids, one group at a time. Its slow twin, which it equals bit for bit, is
// `mse_reference` in src/bitwright/fitting/mse.py.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "bitwright/kernels.h"
#include "bitwright/quantization.h"
#include "half.h"
#include "parallel.h"

namespace bitwright {

namespace {

constexpr int kPowers = 4;  // powers of two tried, from the widest grid down

float next_power_of_two(float x) {
  int exponent;
  const float mantissa = std::frexp(x, &exponent);
  return std::ldexp(1.0f, mantissa > 0.5f ? exponent : exponent - 1);
}

float round_scale(float scale, ScaleRounding rounding) {
  const float smallest = rounding == ScaleRounding::fp16 ? 0x1p-24f : 0x1p-126f;
  if (std::fabs(scale) < smallest) scale = std::copysign(smallest, scale);
  if (rounding == ScaleRounding::fp16) return half_to_float(float_to_half(scale));
  if (rounding != ScaleRounding::bf16) return scale;
  const auto raw = std::bit_cast<uint32_t>(scale);
  return std::bit_cast<float>((raw + 0x7FFFu + ((raw >> 16) & 1u)) & 0xFFFF0000u);
}

// The group at hand and the best grid found for it.
struct Group {
  const float* x;
  int n;
  const MseSearch& search;
  float error = std::numeric_limits<float>::infinity();
  float scale = std::numeric_limits<float>::infinity();
  float zero_point = 0.0f;

  void consider(float candidate, float zero) {
    const float found = kernels().squared_error(x, n, candidate, zero, search.low, search.high);
    if (!(found < error)) return;
    error = found;
    scale = candidate;
    zero_point = zero;
  }

  void consider_affine(float low, float high) {
    const float candidate = round_scale((high - low) / static_cast<float>(search.high - search.low), search.rounding);
    const float zero = static_cast<float>(search.low) - std::nearbyint(low / candidate);
    consider(candidate, std::clamp(zero, static_cast<float>(search.low), static_cast<float>(search.high)));
  }

  void refit() {
    float products, squares;
    kernels().scale_sums(x, n, scale, zero_point, search.low, search.high, &products, &squares);
    const bool useful = squares > 0 && products != 0;
    consider(round_scale(useful ? products / squares : scale, search.rounding), zero_point);
  }
};

void search_group(Group& group) {
  const MseSearch& search = group.search;
  const auto [least, most] = std::minmax_element(group.x, group.x + group.n);
  const float low = *least, high = *most, widest = std::max(high, -low) / static_cast<float>(search.high);
  if (search.rounding == ScaleRounding::power_of_two) {
    const float top = next_power_of_two(std::max(widest, 0x1p-120f));
    for (int step = 0; step < kPowers; step++) group.consider(std::ldexp(top, -step), 0.0f);
    return;
  }
  for (int i = 0; i < search.shrinks; i++) {
    const float factor = search.shrink[i];
    if (search.affine) {
      group.consider_affine(std::min(low, 0.0f) * factor, std::max(high, 0.0f) * factor);
    } else {
      group.consider(round_scale(widest * factor, search.rounding), 0.0f);
      group.consider(round_scale(-widest * factor, search.rounding), 0.0f);
    }
  }
  for (int i = 0; i < search.refits && std::isfinite(group.scale); i++) group.refit();
}

}  // namespace

void fit_mse(const float* x, size_t groups, size_t n, const MseSearch& search, float* scale, float* zero_point) {
  in_parallel(groups, groups * n, [&](size_t begin, size_t end) {
    for (size_t g = begin; g < end; g++) {
      Group group{x + g * n, static_cast<int>(n), search};
      search_group(group);
      scale[g] = group.scale;
      zero_point[g] = group.zero_point;
    }
  });
}

}  // namespace bitwright
