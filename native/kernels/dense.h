// Dense panels times activations: out[t][lane] = sum over k of panel[k][lane] * x[k][t].
//
// One panel row is one vector; each token keeps its own accumulator, so a loaded weight serves a whole tile. With few
// tokens the sum is split over several accumulators to hide the latency of the multiply-add.
#pragma once

#include "bitwright/kernels.h"

namespace {

using bitwright::DenseInput;
using bitwright::DensePanels;
using bitwright::DenseType;
using bitwright::kAttentionSpan;
using bitwright::kPanelRows;
using bitwright::Output;
using bitwright::PanelRange;

template <class Isa>
struct LoadFp32 {
  using Value = float;
  static typename Isa::F load(const Value* p) { return Isa::load(p); }
};
template <class Isa>
struct LoadFp16 {
  using Value = uint16_t;
  static typename Isa::F load(const Value* p) { return Isa::load_fp16(p); }
};
template <class Isa>
struct LoadBf16 {
  using Value = uint16_t;
  static typename Isa::F load(const Value* p) { return Isa::load_bf16(p); }
};
template <class Isa>
struct LoadInt8 {
  using Value = int8_t;
  static typename Isa::F load(const Value* p) { return Isa::load_int8(p); }
};

// Writes 16 lanes, or only the first `rows` where the matrix ends inside the panel.
template <class Isa>
inline void write_lanes(float* out, typename Isa::F value, int rows, bool accumulate) {
  if (rows >= kPanelRows) {
    Isa::store(out, accumulate ? Isa::add(Isa::load(out), value) : value);
    return;
  }
  float lanes[kPanelRows];
  Isa::store(lanes, value);
  for (int i = 0; i < rows; i++) out[i] = accumulate ? out[i] + lanes[i] : lanes[i];
}

// Activation x(k, t) lies at x[k * stride + t], or with kByRow at x[k + t * kAttentionSpan].
template <class Isa, class Load, int kTokens, bool kByRow>
inline void dense_tile(const typename Load::Value* panel, int k_count, const float* x, int stride, int rows, Output out) {
  constexpr int kUnroll = kTokens == 1 ? 4 : kTokens < 4 ? 2 : 1;
  constexpr int kStrideT = kByRow ? kAttentionSpan : 1;
  typename Isa::F acc[kUnroll][kTokens];
  for (int u = 0; u < kUnroll; u++)
    for (int t = 0; t < kTokens; t++) acc[u][t] = Isa::set1(0.0f);
  int k = 0;
  for (; k + kUnroll <= k_count; k += kUnroll)
    for (int u = 0; u < kUnroll; u++, panel += kPanelRows, x += stride) {
      const auto w = Load::load(panel);
      for (int t = 0; t < kTokens; t++) acc[u][t] = Isa::fma(w, Isa::set1(x[t * kStrideT]), acc[u][t]);
    }
  for (; k < k_count; k++, panel += kPanelRows, x += stride) {
    const auto w = Load::load(panel);
    for (int t = 0; t < kTokens; t++) acc[0][t] = Isa::fma(w, Isa::set1(x[t * kStrideT]), acc[0][t]);
  }
  for (int t = 0; t < kTokens; t++) {
    for (int u = 1; u < kUnroll; u++) acc[0][t] = Isa::add(acc[0][t], acc[u][t]);
    write_lanes<Isa>(out.values + t * out.stride, acc[0][t], rows, out.accumulate);
  }
}

// Turns a run-time count of tokens into a compile-time one.
template <int kMost, class Visit>
inline void with_tokens(int tokens, Visit visit) {
  if constexpr (kMost > 1) {
    if (tokens < kMost) return with_tokens<kMost - 1>(tokens, visit);
  }
  visit.template operator()<kMost>();
}

template <class Isa, class Visit>
inline void with_type(DenseType type, Visit visit) {
  switch (type) {
    case DenseType::fp32:
      return visit.template operator()<LoadFp32<Isa>>();
    case DenseType::fp16:
      return visit.template operator()<LoadFp16<Isa>>();
    case DenseType::bf16:
      return visit.template operator()<LoadBf16<Isa>>();
    case DenseType::int8:
      return visit.template operator()<LoadInt8<Isa>>();
  }
}

template <class Isa>
void dense_panel(DenseType type, const void* panel, int k, DenseInput x, int tokens, Output out) {
  with_type<Isa>(type, [&]<class Load>() {
    const auto* values = static_cast<const typename Load::Value*>(panel);
    with_tokens<Isa::kTile>(tokens, [&]<int kTokens>() {
      if (x.by_row)
        dense_tile<Isa, Load, kTokens, true>(values, k, x.values, 1, kPanelRows, out);
      else
        dense_tile<Isa, Load, kTokens, false>(values, k, x.values, x.stride, kPanelRows, out);
    });
  });
}

template <class Isa>
void dense_matmul(const DensePanels& w, const float* x, int tokens, PanelRange range, Output out) {
  const int tile = tokens == 1 ? 1 : Isa::kTile;
  with_type<Isa>(w.type, [&]<class Load>() {
    for (int p = range.begin; p < range.end; p++) {
      const auto* panel = static_cast<const typename Load::Value*>(w.values) + static_cast<size_t>(p) * w.columns * kPanelRows;
      const int rows = w.rows - p * kPanelRows;
      for (int t = 0; t < tokens; t += tile) {
        const Output here{out.values + t * out.stride + (p - range.begin) * kPanelRows, out.stride, out.accumulate};
        with_tokens<Isa::kTile>(tokens - t, [&]<int kTokens>() {
          dense_tile<Isa, Load, kTokens, false>(panel, w.columns, x + static_cast<size_t>(t) * w.columns, tile, rows, here);
        });
      }
    }
  });
}

}  // namespace
