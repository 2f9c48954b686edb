// Quantized panels times many int8 rows, the product of reading a prompt: each panel is spread to bytes once and reused
// for all rows, a tile of them at a time.
#pragma once

#include "codes.h"

namespace {

// The panel's codes as bytes, [block][step][64]: what eight-bit panels hold already.
template <class Isa, int kBits>
inline const uint8_t* panel_bytes(const QuantizedPanels& w, int p, uint8_t* scratch) {
  const uint8_t* codes = w.codes + static_cast<size_t>(p) * w.blocks * code_bytes(kBits);
  if constexpr (kBits == 8) return codes;
  for (int b = 0; b < w.blocks; b++)
    spread_block<Isa, kBits>(codes + b * code_bytes(kBits), scratch + b * code_bytes(8),
                             std::make_integer_sequence<int, kSteps>());
  return scratch;
}

template <class Isa, class Storage, int kTokens>
inline void quantized_tile(const QuantizedPanels& w, const uint8_t* bytes, const QuantizedRows& x, int first_row, int p,
                           Output out) {
  constexpr bool kSmall = Storage::kBits <= 4;
  constexpr int kOffset = kSmall ? 0 : Isa::kByteOffset;
  const size_t base = static_cast<size_t>(first_row) * x.blocks;
  const int32_t* codes = x.codes + base * kSteps;
  const float *x_scales = x.scales + base, *negated_sums = x.negated_sums + base;
  const int tile = x.tile;
  typename Isa::F acc[kTokens];
  for (int t = 0; t < kTokens; t++) acc[t] = Isa::set1(0.0f);
  size_t g = static_cast<size_t>(p) * w.groups();
  for (int first = 0; first < w.blocks; first += w.blocks_per_group, g++) {
    const Group<Isa, Storage, kOffset> group(w, g);
    const int last = first + w.blocks_per_group < w.blocks ? first + w.blocks_per_group : w.blocks;
    for (int b = first; b < last; b++, x_scales += tile, negated_sums += tile) {
      typename Isa::I sum[kTokens];
      for (int t = 0; t < kTokens; t++) sum[t] = Isa::broadcast(0);
      for (int j = 0; j < kSteps; j++, bytes += kStepBytes, codes += tile) {
        const auto step = Isa::load_bytes(bytes);
        for (int t = 0; t < kTokens; t++) sum[t] = Isa::template dot<kSmall>(sum[t], step, codes[t]);
      }
      for (int t = 0; t < kTokens; t++)
        acc[t] = group.add(Isa::template finish<kSmall>(sum[t]), negated_sums[t], x_scales[t], acc[t]);
    }
  }
  for (int t = 0; t < kTokens; t++)
    write_lanes<Isa>(out.values + t * out.stride, acc[t], w.rows - p * kPanelRows, out.accumulate);
}

template <class Isa>
void quantized_matmul(const QuantizedPanels& w, const QuantizedRows& x, PanelRange range, Output out, uint8_t* scratch) {
  with_storage(w, [&]<class Storage>() {
    for (int p = range.begin; p < range.end; p++) {
      const uint8_t* bytes = panel_bytes<Isa, Storage::kBits>(w, p, scratch);
      for (int row = 0; row < x.rows; row += x.tile) {
        const Output here{out.values + row * out.stride + (p - range.begin) * kPanelRows, out.stride, out.accumulate};
        with_tokens<Isa::kTile>(x.rows - row,
                                [&]<int kTokens>() { quantized_tile<Isa, Storage, kTokens>(w, bytes, x, row, p, here); });
      }
    }
  });
}

}  // namespace
