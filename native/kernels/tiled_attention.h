// Attention over a cache in half precision on a matrix unit: queries, keys, softmax weights and values are multiplied as
// bf16, with float sums. Rows that the unit reads are packed as [tile of 16 rows][32 columns a step][row][32].
//
// Keys (16 positions a panel) and values (16 channels a panel) lie as [column][16 lanes]; the unit wants pairs of columns
// side by side in each lane. Panels are turned once and serve all rows. A row's result does not depend on the others, and
// columns behind the last count as zero.
#pragma once

#include <array>
#include <cstring>
#include <limits>

#include "ahead.h"
#include "bitwright/kernels.h"
#include "dense.h"
#include "tiles.h"
#include "vector_math.h"

namespace {

using bitwright::kMatrixStep;
using bitwright::matrix_steps;

constexpr int kPair = 2 * kPanelRows;  // entries of two columns
constexpr size_t kStepEntries = static_cast<size_t>(kTileRows) * kMatrixStep;

// Where row `row` of packed rows with so many steps begins; its steps are kStepEntries apart.
inline uint16_t* row_of(uint16_t* out, int row, int steps) {
  return out + static_cast<size_t>(row / kTileRows) * steps * kStepEntries + row % kTileRows * kMatrixStep;
}

template <class Isa>
void matrix_row(const float* x, int columns, int row, uint16_t* out) {
  const int steps = matrix_steps(columns);
  out = row_of(out, row, steps);
  for (int k = 0; k < steps * kMatrixStep; k += kPanelRows) {
    uint16_t* to = out + k / kMatrixStep * kStepEntries + k % kMatrixStep;
    const int count = columns - k;
    Isa::store_bf16(to, count >= kPanelRows ? Isa::load(x + k) : load_tail<Isa>(x + k, count, 0.0f));
  }
}

// Lanes that stand for the entries [low, high) of those from k on hold `inside`, the others `outside`.
template <class Isa, class Edge>
inline typename Isa::F between(int k, int low, int high) {
  const auto within = [](int lane) { return lane < 0 ? 0 : lane > kPanelRows ? kPanelRows : lane; };
  const auto from = Isa::load(Edge::kLanes + kPanelRows - within(low - k));
  return Isa::min(from, Isa::load(Edge::kLanes + 2 * kPanelRows - within(high - k)));
}

// 16 lanes outside, 16 inside, 16 outside.
template <float kOutside, float kInside>
struct Edge {
  static constexpr auto kTable = [] {
    std::array<float, 3 * kPanelRows> lanes;
    for (int i = 0; i < 3 * kPanelRows; i++) lanes[i] = i / kPanelRows == 1 ? kInside : kOutside;
    return lanes;
  }();
  static constexpr const float* kLanes = kTable.data();
};
constexpr float kInfinity = std::numeric_limits<float>::infinity();
using Bound = Edge<-kInfinity, kInfinity>;  // the smaller of an entry and this is no entry that counts, outside
using Mask = Edge<0.0f, 1.0f>;

// Entries of x from k on, minus infinity outside of [low, high): none is, if kWhole.
template <class Isa, bool kWhole>
inline typename Isa::F load_between(const float* x, int k, int low, int high) {
  const auto entries = Isa::load(x + k);
  return kWhole ? entries : Isa::min(entries, between<Isa, Bound>(k, low, high));
}

// Runs visit(step, whether all of its entries are in [low, high)) for each step that has any.
template <class Visit>
inline void for_steps(int low, int high, Visit visit) {
  const int end = (high + kMatrixStep - 1) / kMatrixStep;
  int s = low / kMatrixStep;
  if (s < end && low > s * kMatrixStep) visit(s++, std::false_type());
  for (; s < high / kMatrixStep; s++) visit(s, std::true_type());
  if (s < end) visit(s, std::false_type());
}

// exp(x - shift) for x <= shift, to a share of what rounding to bf16 changes.
template <class Isa>
inline typename Isa::F exp_roughly(typename Isa::F x, float shift) {
  if constexpr (requires { Isa::exp2_rough(x); }) {
    constexpr float kLog2E = 1.44269504f, kLeast = -120.0f;  // far from numbers too small to be normal, which are slow
    return Isa::exp2_rough(Isa::max(Isa::fma(x, Isa::set1(kLog2E), Isa::set1(-shift * kLog2E)), Isa::set1(kLeast)));
  } else {
    return exp_of<Isa>(Isa::sub(x, Isa::set1(shift)));
  }
}

// The largest of a row's entries: two at a time, since each maximum waits for the one before.
template <class Isa>
inline float largest_between(const float* x, int low, int high) {
  auto even = Isa::set1(-kInfinity), odd = even;
  for_steps(low, high, [&](int s, auto whole) {
    const int k = s * kPair;
    even = Isa::max(even, load_between<Isa, whole>(x, k, low, high));
    odd = Isa::max(odd, load_between<Isa, whole>(x, k + kPanelRows, low, high));
  });
  return Isa::highest(Isa::max(even, odd));
}

// exp(x - peak) of a row as bf16; returns the sum.
template <class Isa>
inline float weigh_row(const float* x, int low, int high, float peak, int steps, uint16_t* out) {
  auto even = Isa::set1(0.0f), odd = even;
  const auto weigh = [&](int k, auto whole, auto& total) {
    auto weight = exp_roughly<Isa>(load_between<Isa, whole>(x, k, low, high), peak);
    if (!whole) weight = Isa::mul(weight, between<Isa, Mask>(k, low, high));
    total = Isa::add(total, weight);
    return weight;
  };
  for_steps(low, high, [&](int s, auto whole) {
    const auto first = weigh(s * kMatrixStep, whole, even);
    Isa::store_bf16(out + s * kStepEntries, first, weigh(s * kMatrixStep + kPanelRows, whole, odd));
  });
  const auto none = [&](int s) { std::memset(out + s * kStepEntries, 0, kMatrixStep * sizeof(uint16_t)); };
  for (int s = 0; s < low / kMatrixStep; s++) none(s);
  for (int s = (high + kMatrixStep - 1) / kMatrixStep; s < steps; s++) none(s);
  return Isa::sum(Isa::add(even, odd));
}

// Peaks first, of all rows, so that no row's exponentials wait for its own.
template <class Isa>
void softmax_rows(const float* scores, int columns, bitwright::SoftmaxRow* rows, int count, uint16_t* out) {
  using bitwright::kAttentionSpan;
  for (int row = 0; row < count; row++)
    rows[row].peak = largest_between<Isa>(scores + static_cast<size_t>(row) * kAttentionSpan, rows[row].low, rows[row].high);
  const int steps = matrix_steps(columns);
  for (int row = 0; row < count; row++) {
    bitwright::SoftmaxRow& at = rows[row];
    const int high = at.low < at.high ? at.high : 0;  // where nothing is seen, no step is
    at.total =
        weigh_row<Isa>(scores + static_cast<size_t>(row) * kAttentionSpan, at.low, high, at.peak, steps, row_of(out, row, steps));
  }
}

// The first `columns` of a panel in half precision as pairs of bf16, up to a whole number of steps.
template <class Isa>
inline void turn_panel(const uint16_t* panel, int columns, uint16_t* out, Ahead& ahead) {
  const int padded = matrix_steps(columns) * kMatrixStep, whole = columns / 2 * 2;
  int k = 0;
  for (; k < whole; k += 2, panel += kPair, out += kPair) {
    ahead.step();
    Isa::store_bf16_pairs(out, Isa::load_fp16(panel), Isa::load_fp16(panel + kPanelRows));
  }
  if (k < columns) Isa::store_bf16_pairs(out, Isa::load_fp16(panel), Isa::set1(0.0f)), k += 2, out += kPair;
  if (k < padded) std::memset(out, 0, static_cast<size_t>(padded - k) * kPanelRows * sizeof(uint16_t));
}

template <class Isa>
void turn_panels(const bitwright::HalfPanels& w, uint16_t* out) {
  Ahead ahead(w.ahead, w.count * (w.columns / 2) + 1);
  for (int p = 0; p < w.count; p++, out += matrix_steps(w.columns) * kStepEntries)
    turn_panel<Isa>(w.values + p * w.stride, w.columns, out, ahead);
}

// Two tiles of rows times two panels, or one of either.
template <class Tiles, int kTiles, int kPanels>
inline void pair_span(const uint16_t* rows, const uint16_t* panel, size_t next_panel, int steps, float* out, ptrdiff_t stride) {
  sum_products<Tiles, kTiles, kPanels>(
      rows, steps * kTileSize, panel, panel + (kPanels - 1) * next_panel, steps,
      []<int kSum, int kLeft, int kRight>() { Tiles::template multiply_bf16<kSum, kLeft, kRight>(); }, [] {});
  for_tiles(kTiles * kPanels, [&]<int kTile>() {
    float* to = out + kTile / kPanels * kTileRows * stride + kTile % kPanels * kPanelRows;
    Tiles::template store<kTile>(to, stride * sizeof(float));
  });
}

template <class Tiles>
void turned_matmul(const bitwright::TurnedPanels& w, const uint16_t* rows, int count, int steps, Output out) {
  for (int row = 0; row < count; row += 2 * kTileRows, rows += 2 * steps * kStepEntries) {
    const bool two = count - row > kTileRows;
    for (int p = 0; p < w.count; p += 2) {
      float* to = out.values + row * out.stride + p * kPanelRows;
      const uint16_t* panel = w.entries + p * w.stride;
      const auto span = p + 1 == w.count ? two ? pair_span<Tiles, 2, 1> : pair_span<Tiles, 1, 1>
                        : two            ? pair_span<Tiles, 2, 2>
                                         : pair_span<Tiles, 1, 2>;
      span(rows, panel, w.stride, steps, to, out.stride);
    }
  }
}

template <class Tiles>
void begin_tiles(int count) {
  Tiles::begin(TileShapes(count < kTileRows ? count : kTileRows, kTileBytes));
}

}  // namespace
