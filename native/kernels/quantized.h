// Quantized panels times int8 activations, with integer products and one float step a block of 32 columns:
//
//   out[t][row] += scale[row] * x_scale[t] * (sum of code * a  -  zero_point[row] * sum of a)
//
// Both sums and the product are whole numbers below 2^24, so the bracket is exact in float as well.
//
// Order of codes inside a block of 16 rows x 32 columns. Step j (0 .. 7) covers columns 4j .. 4j + 3; its 64 bytes are
// [row][column % 4]. Eight-bit blocks hold the eight steps in turn. Narrower ones share bytes: with f = 8 / bits fields
// a byte, vector i holds steps i*f .. i*f + f - 1, the first in the lowest bits. Three bits are the two-bit planes
// (128 bytes) followed by one vector whose bit j is the top bit of step j.
#pragma once

#include <utility>

#include "bitwright/kernels.h"
#include "dense.h"

namespace {

using bitwright::code_bytes;
using bitwright::kBlock;
using bitwright::QuantizedPanels;
using bitwright::QuantizedRows;
using bitwright::ScaleType;

constexpr int kSteps = kBlock / 4;
constexpr int kStepBytes = kPanelRows * 4;

template <class Isa, int kBits, int kStep>
inline typename Isa::B step_codes(const uint8_t* block) {
  if constexpr (kBits == 8) return Isa::load_bytes(block + kStep * kStepBytes);
  if constexpr (kBits == 4) return Isa::template field<kStep % 2 * 4>(Isa::load_bytes(block + kStep / 2 * kStepBytes), 15);
  const auto low = Isa::template field<kStep % 4 * 2>(Isa::load_bytes(block + kStep / 4 * kStepBytes), 3);
  if constexpr (kBits == 2) return low;
  return Isa::either(low, Isa::template field<kStep - 2>(Isa::load_bytes(block + 2 * kStepBytes), 4));
}

template <class Isa>
inline typename Isa::F load_scales(const QuantizedPanels& w, size_t group) {
  if (w.scale_type == ScaleType::fp16) return Isa::load_fp16(static_cast<const uint16_t*>(w.scales) + group * kPanelRows);
  return Isa::load(static_cast<const float*>(w.scales) + group * kPanelRows);
}

template <class Isa>
inline typename Isa::F load_zero_points(const QuantizedPanels& w, size_t group) {
  if (w.zero_points) return Isa::load_uint8(w.zero_points + group * kPanelRows);
  return Isa::set1(static_cast<float>(1 << (w.bits - 1)));
}

// One group of a panel; `offset` is what the instruction set's dot product centres codes by already.
template <class Isa>
struct Group {
  typename Isa::F scale, zero_point;
  Group(const QuantizedPanels& w, size_t group, float offset)
      : scale(load_scales<Isa>(w, group)), zero_point(Isa::sub(load_zero_points<Isa>(w, group), Isa::set1(offset))) {}
  typename Isa::F add(typename Isa::I sum, float negated_sum, float x_scale, typename Isa::F acc) const {
    const auto exact = Isa::fma(zero_point, Isa::set1(negated_sum), Isa::to_float(sum));
    return Isa::fma(exact, Isa::mul(scale, Isa::set1(x_scale)), acc);
  }
};

// Calls visit<bits>() for the run-time width.
template <class Visit>
inline void with_bits(int bits, Visit visit) {
  switch (bits) {
    case 2:
      return visit.template operator()<2>();
    case 3:
      return visit.template operator()<3>();
    case 4:
      return visit.template operator()<4>();
    default:
      return visit.template operator()<8>();
  }
}

template <class Isa, int kBits, int... kStep>
inline typename Isa::I block_dot(const uint8_t* block, const int32_t* x, std::integer_sequence<int, kStep...>) {
  constexpr bool kSmall = kBits <= 4;
  auto acc = Isa::broadcast(0);
  ((acc = Isa::template dot<kSmall>(acc, step_codes<Isa, kBits, kStep>(block), x[kStep])), ...);
  return Isa::template finish<kSmall>(acc);
}

template <class Isa, int kBits>
inline void vector_panel(const QuantizedPanels& w, const QuantizedRows& x, int p, float* out, bool accumulate) {
  constexpr float kOffset = kBits <= 4 ? 0.0f : static_cast<float>(Isa::kByteOffset);
  const uint8_t* block = w.codes + static_cast<size_t>(p) * w.blocks * code_bytes(kBits);
  size_t group = static_cast<size_t>(p) * w.groups();
  auto acc = Isa::set1(0.0f);
  for (int first = 0; first < w.blocks; first += w.blocks_per_group, group++) {
    const Group<Isa> grid(w, group, kOffset);
    const int last = first + w.blocks_per_group < w.blocks ? first + w.blocks_per_group : w.blocks;
    for (int b = first; b < last; b++, block += code_bytes(kBits)) {
      const auto sum = block_dot<Isa, kBits>(block, x.codes + b * kSteps, std::make_integer_sequence<int, kSteps>());
      acc = grid.add(sum, x.negated_sums[b], x.scales[b], acc);
    }
  }
  write_lanes<Isa>(out, acc, w.rows - p * kPanelRows, accumulate);
}

template <class Isa>
void quantized_vector(const QuantizedPanels& w, const QuantizedRows& x, PanelRange range, Output out) {
  with_bits(w.bits, [&]<int kBits>() {
    for (int p = range.begin; p < range.end; p++)
      vector_panel<Isa, kBits>(w, x, p, out.values + (p - range.begin) * kPanelRows, out.accumulate);
  });
}

template <class Isa, int kBits, int... kStep>
inline void spread_block(const uint8_t* block, uint8_t* bytes, std::integer_sequence<int, kStep...>) {
  (Isa::store_bytes(bytes + kStep * kStepBytes, step_codes<Isa, kBits, kStep>(block)), ...);
}

// The panel's codes as bytes, [block][step][64]: what eight-bit panels hold already.
template <class Isa>
inline const uint8_t* panel_bytes(const QuantizedPanels& w, int p, uint8_t* scratch) {
  const uint8_t* codes = w.codes + static_cast<size_t>(p) * w.blocks * code_bytes(w.bits);
  if (w.bits == 8) return codes;
  with_bits(w.bits, [&]<int kBits>() {
    for (int b = 0; b < w.blocks; b++)
      spread_block<Isa, kBits>(codes + b * code_bytes(kBits), scratch + b * code_bytes(8),
                               std::make_integer_sequence<int, kSteps>());
  });
  return scratch;
}

template <class Isa, bool kSmall, int kTokens>
inline void quantized_tile(const QuantizedPanels& w, const uint8_t* bytes, const QuantizedRows& x, size_t tile_index, int p,
                           Output out) {
  constexpr float kOffset = kSmall ? 0.0f : static_cast<float>(Isa::kByteOffset);
  const size_t base = tile_index * x.blocks * x.tile;
  const int32_t* codes = x.codes + base * kSteps;
  const float *x_scales = x.scales + base, *negated_sums = x.negated_sums + base;
  const int tile = x.tile;
  typename Isa::F acc[kTokens];
  for (int t = 0; t < kTokens; t++) acc[t] = Isa::set1(0.0f);
  size_t group = static_cast<size_t>(p) * w.groups();
  for (int first = 0; first < w.blocks; first += w.blocks_per_group, group++) {
    const Group<Isa> grid(w, group, kOffset);
    const int last = first + w.blocks_per_group < w.blocks ? first + w.blocks_per_group : w.blocks;
    for (int b = first; b < last; b++, x_scales += tile, negated_sums += tile) {
      typename Isa::I sum[kTokens];
      for (int t = 0; t < kTokens; t++) sum[t] = Isa::broadcast(0);
      for (int j = 0; j < kSteps; j++, bytes += kStepBytes, codes += tile) {
        const auto step = Isa::load_bytes(bytes);
        for (int t = 0; t < kTokens; t++) sum[t] = Isa::template dot<kSmall>(sum[t], step, codes[t]);
      }
      for (int t = 0; t < kTokens; t++)
        acc[t] = grid.add(Isa::template finish<kSmall>(sum[t]), negated_sums[t], x_scales[t], acc[t]);
    }
  }
  for (int t = 0; t < kTokens; t++)
    write_lanes<Isa>(out.values + t * out.stride, acc[t], w.rows - p * kPanelRows, out.accumulate);
}

template <class Isa>
void quantized_matmul(const QuantizedPanels& w, const QuantizedRows& x, PanelRange range, Output out, uint8_t* scratch) {
  for (int p = range.begin; p < range.end; p++) {
    const uint8_t* bytes = panel_bytes<Isa>(w, p, scratch);
    for (int t = 0; t < x.rows; t += x.tile) {
      const Output here{out.values + t * out.stride + (p - range.begin) * kPanelRows, out.stride, out.accumulate};
      with_tokens<Isa::kTile>(x.rows - t, [&]<int kTokens>() {
        if (w.bits <= 4)
          quantized_tile<Isa, true, kTokens>(w, bytes, x, t / x.tile, p, here);
        else
          quantized_tile<Isa, false, kTokens>(w, bytes, x, t / x.tile, p, here);
      });
    }
  }
}

// out[k][16] = scale * (code - zero_point) for one panel; out has blocks * 32 rows.
template <class Isa>
void dequantize_panel(const QuantizedPanels& w, int p, float* out) {
  with_bits(w.bits, [&]<int kBits>() {
    uint8_t bytes[code_bytes(8)];
    for (int b = 0; b < w.blocks; b++) {
      const size_t group = static_cast<size_t>(p) * w.groups() + b / w.blocks_per_group;
      const auto scale = load_scales<Isa>(w, group), zero_point = load_zero_points<Isa>(w, group);
      spread_block<Isa, kBits>(w.codes + (static_cast<size_t>(p) * w.blocks + b) * code_bytes(kBits), bytes,
                               std::make_integer_sequence<int, kSteps>());
      for (int j = 0; j < kSteps; j++)
        for (int i = 0; i < 4; i++, out += kPanelRows) {
          const auto code = Isa::to_float(Isa::byte(Isa::load_bytes(bytes + j * kStepBytes), i));
          Isa::store(out, Isa::mul(Isa::sub(code, zero_point), scale));
        }
    }
  });
}

}  // namespace
