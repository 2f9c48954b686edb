// Attention over a cache in half precision on a matrix unit: queries, keys, softmax weights and values are multiplied as
// bf16, with float sums. Rows that the unit reads are packed as [tile of 16 rows][32 columns a step][row][32].
//
// Keys (16 positions a panel) and values (16 channels a panel) lie as [column][16 lanes]; the unit wants pairs of columns
// side by side in each lane. A panel is turned once and serves all rows. A row's result does not depend on the others, and
// columns behind the last count as zero.
#pragma once

#include <cstring>

#include "bitwright/kernels.h"
#include "dense.h"
#include "tiles.h"
#include "vector_math.h"

namespace {

using bitwright::kMatrixStep;

constexpr int kPair = 2 * kPanelRows;  // entries of two columns
constexpr size_t kStepEntries = static_cast<size_t>(kTileRows) * kMatrixStep;

inline int matrix_steps(int columns) { return (columns + kMatrixStep - 1) / kMatrixStep; }

// Calls write(out, k) for each 16 columns of a row, up to a whole number of steps.
template <class Write>
inline void for_row(int columns, int row, uint16_t* out, Write write) {
  const int steps = matrix_steps(columns);
  out += static_cast<size_t>(row / kTileRows) * steps * kStepEntries + row % kTileRows * kMatrixStep;
  for (int s = 0; s < steps; s++, out += kStepEntries)
    for (int half = 0; half < kMatrixStep; half += kPanelRows) write(out + half, s * kMatrixStep + half);
}

// 16 entries of x from k on, those outside of [low, high) being `fill`.
template <class Isa>
inline typename Isa::F load_between(const float* x, int k, int low, int high, float fill) {
  if (k >= low && k + kPanelRows <= high) return Isa::load(x + k);
  float lanes[kPanelRows];
  for (int i = 0; i < kPanelRows; i++) lanes[i] = k + i >= low && k + i < high ? x[k + i] : fill;
  return Isa::load(lanes);
}

template <class Isa>
void matrix_row(const float* x, int columns, int row, uint16_t* out) {
  for_row(columns, row, out, [&](uint16_t* to, int k) { Isa::store_bf16(to, load_between<Isa>(x, k, 0, columns, 0.0f)); });
}

// exp(x - shift) for x <= shift, to a share of what rounding to bf16 changes.
template <class Isa>
inline typename Isa::F exp_roughly(typename Isa::F x, float shift) {
  if constexpr (requires { Isa::exp2_rough(x); }) {
    constexpr float kLog2E = 1.44269504f, kLeast = -126.0f;
    return Isa::exp2_rough(Isa::max(Isa::fma(x, Isa::set1(kLog2E), Isa::set1(-shift * kLog2E)), Isa::set1(kLeast)));
  } else {
    return exp_of<Isa>(Isa::sub(x, Isa::set1(shift)));
  }
}

template <class Isa>
float softmax_row(const float* x, int low, int high, int columns, float shift, int row, uint16_t* out) {
  auto total = Isa::set1(0.0f);
  for_row(columns, row, out, [&](uint16_t* to, int k) {
    auto weight = Isa::set1(0.0f);
    if (k + kPanelRows > low && k < high) {
      weight = exp_roughly<Isa>(load_between<Isa>(x, k, low, high, shift), shift);
      if (k < low || k + kPanelRows > high) {
        float lanes[kPanelRows];
        Isa::store(lanes, weight);
        weight = load_between<Isa>(lanes, 0, low - k, high - k, 0.0f);
      }
      total = Isa::add(total, weight);
    }
    Isa::store_bf16(to, weight);
  });
  return Isa::sum(total);
}

// The first `columns` of a panel in half precision as pairs of bf16, up to a whole number of steps.
template <class Isa>
inline void turn_panel(const uint16_t* panel, int columns, uint16_t* out) {
  const int padded = matrix_steps(columns) * kMatrixStep, whole = columns / 2 * 2;
  int k = 0;
  for (; k < whole; k += 2, panel += kPair, out += kPair)
    Isa::store_bf16_pairs(out, Isa::load_fp16(panel), Isa::load_fp16(panel + kPanelRows));
  if (k < columns) Isa::store_bf16_pairs(out, Isa::load_fp16(panel), Isa::set1(0.0f)), k += 2, out += kPair;
  if (k < padded) std::memset(out, 0, static_cast<size_t>(padded - k) * kPanelRows * sizeof(uint16_t));
}

// out[row][lane] of one turned panel; rows up to a multiple of 16 are written.
template <class Tiles>
inline void panel_products(const uint16_t* rows, const uint16_t* panel, int count, int steps, Output out) {
  const int tiles = (count + kTileRows - 1) / kTileRows;
  const size_t stride = out.stride * sizeof(float);
  for (int first = 0; first < tiles; first += 4) {
    const int together = tiles - first < 4 ? tiles - first : 4;
    for_tiles(together, []<int kTile>() { Tiles::template clear<kTile>(); });
    for (int s = 0; s < steps; s++) {
      Tiles::template load<kB>(panel + s * kStepEntries, kTileBytes);
      for_tiles(together, [&]<int kTile>() {
        Tiles::template load<kA + kTile % 2>(rows + (static_cast<size_t>(first + kTile) * steps + s) * kStepEntries, kTileBytes);
        Tiles::template multiply_bf16<kTile, kA + kTile % 2, kB>();
      });
    }
    for_tiles(together,
              [&]<int kTile>() { Tiles::template store<kTile>(out.values + (first + kTile) * kTileRows * out.stride, stride); });
  }
}

template <class Isa, class Tiles>
void matrix_panels(const bitwright::HalfPanels& w, const uint16_t* rows, int count, Output out, uint16_t* scratch) {
  const int steps = matrix_steps(w.columns);
  Tiles::begin(TileShapes(count < kTileRows ? count : kTileRows, kTileBytes));
  for (int p = 0; p < w.count; p++, out.values += kPanelRows) {
    turn_panel<Isa>(w.values + p * w.stride, w.columns, scratch);
    panel_products<Tiles>(rows, scratch, count, steps, out);
  }
  Tiles::end();
}

}  // namespace
