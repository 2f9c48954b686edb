// Attention's products where keys and values are cached as codes: integer products with rows of int8.
//
//   out[row][lane] = lane_scale * (sum over blocks of unit * (sum of code * x)  -  zero * total)
//
// Queries (and, for values, the softmax weights times the scales of their positions) are rounded to int8, one unit for every
// 32 columns. Order of codes inside a block of 16 lanes x 32 columns: step j (0 .. 7) covers columns 4j .. 4j + 3 as
// [lane][column % 4]; eight-bit blocks hold the steps in turn, four-bit blocks hold steps 2i (low nibbles) and 2i + 1 (high
// nibbles) in vector i.
#pragma once

#include <cstring>
#include <utility>

#include "codes.h"
#include "vector_math.h"

namespace {

using bitwright::cached_zero;
using bitwright::CachedPanels;
using bitwright::CachedRows;

template <class Isa, int kBits, int kStep>
inline typename Isa::B cached_step(const uint8_t* block) {
  if constexpr (kBits == 8) return Isa::load_bytes(block + kStep * kStepBytes);
  return Isa::template field<kStep % 2 * 4>(Isa::load_bytes(block + kStep / 2 * kStepBytes), 15);
}

// A head's keys, then its values, then the next head's lie one after the other: what comes next is asked for this early.
constexpr int kCachedAhead = 4096;

template <class Isa, int kBits, int kRows>
inline void cached_panel(const uint8_t* block, const CachedPanels& w, const float* lane_scales, const CachedRows& x, Output out) {
  constexpr bool kSmall = kBits == 4;
  const auto zero = Isa::set1((kSmall ? 0 : Isa::kByteOffset) - cached_zero(kBits));
  const int8_t* codes = x.codes;
  const float* units = x.units;
  typename Isa::F acc[kRows];
  for (int row = 0; row < kRows; row++) acc[row] = Isa::mul(zero, Isa::set1(x.totals[row]));
  for (int b = 0; b < w.blocks; b++, block += code_bytes(kBits), codes += kRows * kBlock, units += kRows) {
    for (int i = 0; i < code_bytes(kBits); i += kStepBytes) __builtin_prefetch(block + kCachedAhead + i);
    typename Isa::I sums[kRows];
    for (int row = 0; row < kRows; row++) sums[row] = Isa::broadcast(0);
    const auto step = [&]<int kStep>() {
      const auto bytes = cached_step<Isa, kBits, kStep>(block);
      for (int row = 0; row < kRows; row++) {
        int32_t four;
        std::memcpy(&four, codes + row * kBlock + 4 * kStep, 4);
        sums[row] = Isa::template dot<kSmall>(sums[row], bytes, four);
      }
    };
    [&]<int... kStep>(std::integer_sequence<int, kStep...>) {
      (step.template operator()<kStep>(), ...);
    }(std::make_integer_sequence<int, kSteps>());
    for (int row = 0; row < kRows; row++)
      acc[row] = Isa::fma(Isa::to_float(Isa::template finish<kSmall>(sums[row])), Isa::set1(units[row]), acc[row]);
  }
  for (int row = 0; row < kRows; row++)
    Isa::store(out.values + row * out.stride, lane_scales == nullptr ? acc[row] : Isa::mul(acc[row], Isa::load(lane_scales)));
}

template <class Isa, int kBits>
inline void cached_range(const CachedPanels& w, const CachedRows& x, Output out) {
  with_tokens<Isa::kTile>(x.rows, [&]<int kRows>() {
    for (int p = 0; p < w.panels; p++)
      cached_panel<Isa, kBits, kRows>(w.codes + p * w.stride, w, w.scales == nullptr ? nullptr : w.scales + p * kPanelRows, x,
                                      {out.values + p * kPanelRows, out.stride, false});
  });
}

// One row, times `factors` where they are given, to int8.
template <class Isa>
void cached_row(const float* x, const float* factors, int columns, int row, const CachedRows& out) {
  auto* codes = const_cast<int8_t*>(out.codes) + static_cast<size_t>(row) * kBlock;
  auto* units = const_cast<float*>(out.units) + row;
  float total = 0.0f;
  for (int k = 0; k < columns; k += kBlock, codes += out.rows * kBlock, units += out.rows) {
    typename Isa::F values[2];
    for (int half = 0; half < 2; half++) {
      const int begin = k + half * kPanelRows, count = columns - begin;
      values[half] = count >= kPanelRows ? Isa::load(x + begin) : load_tail<Isa>(x + begin, count, 0.0f);
      if (factors == nullptr) continue;
      const auto factor = count >= kPanelRows ? Isa::load(factors + begin) : load_tail<Isa>(factors + begin, count, 0.0f);
      values[half] = Isa::mul(values[half], factor);
    }
    const float bound = Isa::highest(Isa::max(Isa::abs(values[0]), Isa::abs(values[1])));
    const auto inverse = Isa::set1(bound > 0.0f ? 127.0f / bound : 0.0f);
    for (int half = 0; half < 2; half++) {
      values[half] = Isa::round(Isa::mul(values[half], inverse));
      Isa::store_int8(codes + half * kPanelRows, values[half]);
    }
    *units = bound * (1.0f / 127.0f);
    total += *units * Isa::sum(Isa::add(values[0], values[1]));
  }
  const_cast<float*>(out.totals)[row] = total;
}

template <class Isa>
void cached_panels(const CachedPanels& w, const CachedRows& x, Output out) {
  if (w.bits == 4) return cached_range<Isa, 4>(w, x, out);
  cached_range<Isa, 8>(w, x, out);
}

}  // namespace
