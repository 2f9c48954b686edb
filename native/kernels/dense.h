// Dense panels times activations: out[t][lane] = sum over k of panel[k][lane] * x[k][t].
//
// One panel row is one vector; each token keeps its own accumulator, so a loaded weight serves a whole tile. A sum runs
// over k in order, however many tokens are at hand: a token's result does not depend on its neighbours. A single token
// takes several panels at once instead, to hide the latency of the multiply-add.
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
  constexpr int kStrideT = kByRow ? kAttentionSpan : 1;
  typename Isa::F acc[kTokens];
  for (int t = 0; t < kTokens; t++) acc[t] = Isa::set1(0.0f);
  for (int k = 0; k < k_count; k++, panel += kPanelRows, x += stride) {
    const auto w = Load::load(panel);
    for (int t = 0; t < kTokens; t++) acc[t] = Isa::fma(w, Isa::set1(x[t * kStrideT]), acc[t]);
  }
  for (int t = 0; t < kTokens; t++) write_lanes<Isa>(out.values + t * out.stride, acc[t], rows, out.accumulate);
}

// One token, kTogether panels that follow one another.
constexpr int kTogether = 4;

template <class Isa, class Load>
inline void dense_vector(const typename Load::Value* panel, int k_count, const float* x, int rows, Output out) {
  typename Isa::F acc[kTogether];
  for (int u = 0; u < kTogether; u++) acc[u] = Isa::set1(0.0f);
  const size_t next = static_cast<size_t>(k_count) * kPanelRows;
  for (int k = 0; k < k_count; k++, panel += kPanelRows) {
    const auto value = Isa::set1(x[k]);
    for (int u = 0; u < kTogether; u++) acc[u] = Isa::fma(Load::load(panel + u * next), value, acc[u]);
  }
  for (int u = 0; u < kTogether; u++)
    write_lanes<Isa>(out.values + u * kPanelRows, acc[u], rows - u * kPanelRows, out.accumulate);
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
      if (tokens == 1 && p + kTogether <= range.end) {
        dense_vector<Isa, Load>(panel, w.columns, x, rows, {out.values + (p - range.begin) * kPanelRows, 0, out.accumulate});
        p += kTogether - 1;
        continue;
      }
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
