// Attention's products where keys and values are cached as codes: integer products with rows of one digit or two.
//
//   one digit    out[row][lane] = lane_scale * sum over blocks of unit * (sum of code * x - zero * sum of x)
//   two digits   the same with x = 254 * high + low, each digit an int8
//
// Rows are queries and, for values, the softmax weights times the scales of their positions. Both have one unit for every
// 32 columns. Two digits make 15 bits, whose error is nothing beside that of the cache; one digit, eight bits, is what the
// activations of linear layers have too. Order of codes inside a block of 16 lanes x 32 columns: step j (0 .. 7) covers
// columns 4j .. 4j + 3 as [lane][column % 4]; eight-bit blocks hold the steps in turn, four-bit blocks hold steps 2i (low
// nibbles) and 2i + 1 (high nibbles) in vector i.
#pragma once

#include <cstring>
#include <utility>

#include "ahead.h"
#include "codes.h"
#include "vector_math.h"

namespace {

using bitwright::cached_zero;
using bitwright::CachedPanels;
using bitwright::CachedRows;

constexpr float kDigit = 254.0f;

template <class Isa, int kBits, int kStep>
inline typename Isa::B cached_step(const uint8_t* block) {
  if constexpr (kBits == 8) return Isa::load_bytes(block + kStep * kStepBytes);
  return Isa::template field<kStep % 2 * 4>(Isa::load_bytes(block + kStep / 2 * kStepBytes), 15);
}

template <class Isa, int kBits, int kRows, int kDigits>
inline void cached_panel(const uint8_t* block, const CachedPanels& w, const float* lane_scales, const CachedRows& x, Output out,
                         Ahead& ahead) {
  constexpr bool kSmall = kBits == 4;
  const auto zero = Isa::set1((kSmall ? 0 : Isa::kByteOffset) - cached_zero(kBits)), base = Isa::set1(kDigit);
  const int8_t* codes = x.codes;
  const float *units = x.units, *sums = x.sums;
  typename Isa::F acc[kRows];
  for (int row = 0; row < kRows; row++) acc[row] = Isa::set1(0.0f);
  for (int b = 0; b < w.blocks;
       b++, block += code_bytes(kBits), codes += kRows * kDigits * kBlock, units += kRows, sums += kRows) {
    ahead.step();
    typename Isa::I products[kRows * kDigits];
    for (auto& product : products) product = Isa::broadcast(0);
    const auto step = [&]<int kStep>() {
      const auto bytes = cached_step<Isa, kBits, kStep>(block);
      for (int i = 0; i < kRows * kDigits; i++) {
        int32_t four;
        std::memcpy(&four, codes + i * kBlock + 4 * kStep, 4);
        products[i] = Isa::template dot<kSmall>(products[i], bytes, four);
      }
    };
    [&]<int... kStep>(std::integer_sequence<int, kStep...>) {
      (step.template operator()<kStep>(), ...);
    }(std::make_integer_sequence<int, kSteps>());
    for (int row = 0; row < kRows; row++) {
      auto sum = Isa::to_float(Isa::template finish<kSmall>(products[row * kDigits]));
      if constexpr (kDigits == 2) sum = Isa::fma(sum, base, Isa::to_float(Isa::template finish<kSmall>(products[2 * row + 1])));
      acc[row] = Isa::fma(Isa::fma(zero, Isa::set1(sums[row]), sum), Isa::set1(units[row]), acc[row]);
    }
  }
  for (int row = 0; row < kRows; row++)
    Isa::store(out.values + row * out.stride, lane_scales == nullptr ? acc[row] : Isa::mul(acc[row], Isa::load(lane_scales)));
}

template <class Isa, int kBits, int kDigits>
inline void cached_range(const CachedPanels& w, const CachedRows& x, Output out) {
  Ahead ahead({w.ahead}, w.panels * w.blocks);
  with_tokens<Isa::kTile / kDigits>(x.rows, [&]<int kRows>() {
    for (int p = 0; p < w.panels; p++)
      cached_panel<Isa, kBits, kRows, kDigits>(w.codes + p * w.stride, w,
                                               w.scales == nullptr ? nullptr : w.scales + p * kPanelRows, x,
                                               {out.values + p * kPanelRows, out.stride, false}, ahead);
  });
}

// One row, times `factors` where they are given.
template <class Isa, int kDigits>
inline void write_digits(const float* x, const float* factors, int columns, int row, const CachedRows& out) {
  constexpr float kMost = kDigits == 1 ? 127.0f : 127.0f * kDigit + 126.0f;  // one more would round up to 128 * 254
  auto* codes = const_cast<int8_t*>(out.codes) + static_cast<size_t>(row) * kDigits * kBlock;
  auto *units = const_cast<float*>(out.units) + row, *sums = const_cast<float*>(out.sums) + row;
  for (int k = 0; k < columns; k += kBlock, codes += out.rows * kDigits * kBlock, units += out.rows, sums += out.rows) {
    typename Isa::F values[2];
    for (int half = 0; half < 2; half++) {
      const int begin = k + half * kPanelRows, count = columns - begin;
      values[half] = count >= kPanelRows ? Isa::load(x + begin) : load_tail<Isa>(x + begin, count, 0.0f);
      if (factors == nullptr) continue;
      const auto factor = count >= kPanelRows ? Isa::load(factors + begin) : load_tail<Isa>(factors + begin, count, 0.0f);
      values[half] = Isa::mul(values[half], factor);
    }
    const float bound = Isa::highest(Isa::max(Isa::abs(values[0]), Isa::abs(values[1])));
    const auto inverse = Isa::set1(bound > 0.0f ? kMost / bound : 0.0f);
    auto sum = Isa::set1(0.0f);
    for (int half = 0; half < 2; half++) {
      const auto code = Isa::round(Isa::mul(values[half], inverse));
      const auto digit = kDigits == 1 ? code : Isa::round(Isa::mul(code, Isa::set1(1.0f / kDigit)));
      Isa::store_int8(codes + half * kPanelRows, digit);
      if constexpr (kDigits == 2)
        Isa::store_int8(codes + kBlock + half * kPanelRows, Isa::sub(code, Isa::mul(digit, Isa::set1(kDigit))));
      sum = Isa::add(sum, code);
    }
    *units = bound / kMost;
    *sums = Isa::sum(sum);
  }
}

template <class Isa>
void cached_row(const float* x, const float* factors, int columns, int row, const CachedRows& out) {
  if (out.digits == 1) return write_digits<Isa, 1>(x, factors, columns, row, out);
  write_digits<Isa, 2>(x, factors, columns, row, out);
}

template <class Isa>
void cached_panels(const CachedPanels& w, const CachedRows& x, Output out) {
  if (w.bits == 4) return x.digits == 1 ? cached_range<Isa, 4, 1>(w, x, out) : cached_range<Isa, 4, 2>(w, x, out);
  x.digits == 1 ? cached_range<Isa, 8, 1>(w, x, out) : cached_range<Isa, 8, 2>(w, x, out);
}

}  // namespace
