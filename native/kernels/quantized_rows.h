// Rows of activations as the integer products want them: rotated, and rounded to int8.
//
// The Hadamard transform spreads a row's outliers over its block, so that one scale serves the whole row (QuaRot, Ashkboos
// et al. 2024, arXiv:2404.00456).
#pragma once

#include <cstring>

#include "codes.h"
#include "vector_math.h"

namespace {

constexpr int kPairOfBlocks = 2 * kBlock;

// A block of 32, or two, read through a zero-padded copy at the end of the row.
template <int kSize>
struct Padded {
  float copy[kSize];
  const float* values;
  Padded(const float* x, int count) : values(x) {
    if (count >= kSize) return;
    for (int i = 0; i < kSize; i++) copy[i] = i < count ? x[i] : 0.0f;
    values = copy;
  }
};

template <class Isa>
inline float block_bound(const float* x) {
  return Isa::highest(Isa::max(Isa::abs(Isa::load(x)), Isa::abs(Isa::load(x + kPanelRows))));
}

// Four at a time, since each maximum waits for the one before.
template <class Isa>
inline float row_bound(const float* x, int n) {
  constexpr int kStreams = 4;
  typename Isa::F bounds[kStreams];
  for (auto& bound : bounds) bound = Isa::set1(0.0f);
  int i = 0;
  for (; i + kStreams * kPanelRows <= n; i += kStreams * kPanelRows)
    for (int s = 0; s < kStreams; s++) bounds[s] = Isa::max(bounds[s], Isa::abs(Isa::load(x + i + s * kPanelRows)));
  for_each_vector<Isa>(x + i, n - i, 0.0f, [&](int, auto v, int) { bounds[0] = Isa::max(bounds[0], Isa::abs(v)); });
  return Isa::highest(Isa::max(Isa::max(bounds[0], bounds[1]), Isa::max(bounds[2], bounds[3])));
}

// Codes of two blocks, and the sum of each.
template <class Isa>
inline void round_blocks(const float* x, const float* inverses, int8_t* codes, int32_t* sums) {
  if constexpr (requires { Isa::round_blocks(x, inverses, codes, sums); }) return Isa::round_blocks(x, inverses, codes, sums);
  for (int b = 0; b < 2; b++, x += kBlock, codes += kBlock) {
    const auto inverse = Isa::set1(inverses[b]);
    const auto low = Isa::round(Isa::mul(Isa::load(x), inverse)), high = Isa::round(Isa::mul(Isa::load(x + kPanelRows), inverse));
    Isa::store_int8(codes, low);
    Isa::store_int8(codes + kPanelRows, high);
    sums[b] = static_cast<int32_t>(Isa::sum(Isa::add(low, high)));
  }
}

inline void place_codes(const int8_t* codes, int step, int32_t* out) {
  if (step == 1) return static_cast<void>(std::memcpy(out, codes, kBlock));
  for (int j = 0; j < kSteps; j++) std::memcpy(out + j * step, codes + 4 * j, 4);
}

template <class Isa>
void quantize_row(const float* x, int columns, bool whole, RowTarget target) {
  const auto inverse_of = [](float bound) { return bound > 0.0f ? 127.0f / bound : 0.0f; };
  const float bound = whole ? row_bound<Isa>(x, columns) : 0.0f;
  if (whole) *target.scales = bound / 127.0f;
  float inverses[2] = {inverse_of(bound), inverse_of(bound)};
  int32_t total = 0;
  for (int k = 0, block = 0; k < columns; k += kPairOfBlocks) {
    const Padded<kPairOfBlocks> padded(x + k, columns - k);
    const int blocks = columns - k > kBlock ? 2 : 1;
    for (int b = 0; b < blocks && !whole; b++) {
      const float own = block_bound<Isa>(padded.values + b * kBlock);
      target.scales[(block + b) * target.tile] = own / 127.0f;
      inverses[b] = inverse_of(own);
    }
    int8_t codes[kPairOfBlocks];
    int32_t sums[2];
    round_blocks<Isa>(padded.values, inverses, codes, sums);
    for (int b = 0; b < blocks; b++, block++) {
      place_codes(codes + b * kBlock, target.step(), target.block(block));
      target.negated_sums[block * target.tile] = -sums[b];
      total -= sums[b];
    }
  }
  *target.negated_total = total;
}

template <class Isa>
void quantize_row_wide(const float* x, int columns, bool whole, RowTarget high, RowTarget low) {
  constexpr float kBase = 254.0f, kMost = 127.0f * kBase + 126.0f;  // one more would round up to 128 * 254
  const float row = whole ? row_bound<Isa>(x, columns) : 0.0f;
  int32_t high_total = 0, low_total = 0;
  for (int k = 0, block = 0; k < columns; k += kBlock, block++) {
    const Padded<kBlock> padded(x + k, columns - k);
    const float bound = whole ? row : block_bound<Isa>(padded.values), unit = bound / kMost;
    const float inverse = bound > 0.0f ? kMost / bound : 0.0f;
    if (!whole || k == 0) high.scales[block * high.tile] = unit * kBase, low.scales[block * low.tile] = unit;
    int8_t first[kBlock], second[kBlock];
    auto first_sum = Isa::set1(0.0f), second_sum = Isa::set1(0.0f);
    for (int half = 0; half < kBlock; half += kPanelRows) {
      const auto code = Isa::round(Isa::mul(Isa::load(padded.values + half), Isa::set1(inverse)));
      const auto upper = Isa::round(Isa::mul(code, Isa::set1(1.0f / kBase)));
      const auto lower = Isa::sub(code, Isa::mul(upper, Isa::set1(kBase)));
      Isa::store_int8(first + half, upper);
      Isa::store_int8(second + half, lower);
      first_sum = Isa::add(first_sum, upper);
      second_sum = Isa::add(second_sum, lower);
    }
    place_codes(first, high.step(), high.block(block));
    place_codes(second, low.step(), low.block(block));
    high_total += high.negated_sums[block * high.tile] = -static_cast<int32_t>(Isa::sum(first_sum));
    low_total += low.negated_sums[block * low.tile] = -static_cast<int32_t>(Isa::sum(second_sum));
  }
  *high.negated_total = high_total, *low.negated_total = low_total;
}

// Lane i and lane i ^ kDistance become their sum (lower) and difference (upper).
template <class Isa, int kDistance>
inline typename Isa::F lane_butterfly(typename Isa::F v) {
  static const float kSigns[] = {1, -1};
  alignas(64) float signs[kPanelRows];
  for (int i = 0; i < kPanelRows; i++) signs[i] = kSigns[(i & kDistance) != 0];
  return Isa::fma(v, Isa::load(signs), Isa::template swap_lanes<kDistance>(v));
}

// One vector's own part of the transform, for blocks up to 16.
template <class Isa>
inline typename Isa::F lane_hadamard(typename Isa::F v, int block) {
  if (block > 1) v = lane_butterfly<Isa, 1>(v);
  if (block > 2) v = lane_butterfly<Isa, 2>(v);
  if (block > 4) v = lane_butterfly<Isa, 4>(v);
  if (block > 8) v = lane_butterfly<Isa, 8>(v);
  return v;
}

// Sums and differences of vectors that are 1, 2, 4 ... apart.
template <class Isa, int kCount>
[[gnu::always_inline]] inline void vector_butterflies(typename Isa::F (&v)[kCount]) {
#pragma GCC unroll 8
  for (int distance = 1; distance < kCount; distance *= 2)
#pragma GCC unroll 32
    for (int i = 0; i < kCount; i++)
      if ((i & distance) == 0) {
        const auto low = v[i], high = v[i + distance];
        v[i] = Isa::add(low, high);
        v[i + distance] = Isa::sub(low, high);
      }
}

constexpr int kHeldVectors = 16;  // of a block, as many as stay in registers

// Blocks of kVectors * 16, up to kHeldVectors: all of a block in registers.
template <class Isa, int kVectors>
inline void hadamard_held(const float* x, float factor, float* out) {
  typename Isa::F v[kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kVectors; i++) v[i] = lane_hadamard<Isa>(Isa::load(x + i * kPanelRows), kPanelRows);
  vector_butterflies<Isa, kVectors>(v);
#pragma GCC unroll 16
  for (int i = 0; i < kVectors; i++) Isa::store(out + i * kPanelRows, Isa::mul(v[i], Isa::set1(factor)));
}

template <class Isa>
inline void hadamard_block(const float* x, int vectors, float factor, float* out) {
  if (vectors == 2) return hadamard_held<Isa, 2>(x, factor, out);
  if (vectors == 4) return hadamard_held<Isa, 4>(x, factor, out);
  if (vectors == 8) return hadamard_held<Isa, 8>(x, factor, out);
  for (int i = 0; i < vectors; i += kHeldVectors)
    hadamard_held<Isa, kHeldVectors>(x + i * kPanelRows, factor, out + i * kPanelRows);
  for (int distance = kHeldVectors; distance < vectors; distance *= 2)
    for (int first = 0; first < vectors; first += 2 * distance)
      for (int i = first; i < first + distance; i++) {
        float *low = out + i * kPanelRows, *high = low + distance * kPanelRows;
        const auto a = Isa::load(low), b = Isa::load(high);
        Isa::store(low, Isa::add(a, b));
        Isa::store(high, Isa::sub(a, b));
      }
}

template <class Isa>
void hadamard(const float* x, int columns, int block, float* out) {
  const float factor = 1.0f / __builtin_sqrtf(static_cast<float>(block));
  if (block <= kPanelRows) {
    for_each_vector<Isa>(x, columns, 0.0f, [&](int i, auto v, int count) {
      write_lanes<Isa>(out + i, Isa::mul(lane_hadamard<Isa>(v, block), Isa::set1(factor)), count, false);
    });
    return;
  }
  for (int k = 0; k < columns; k += block) hadamard_block<Isa>(x + k, block / kPanelRows, factor, out + k);  // and no tail
}

}  // namespace
