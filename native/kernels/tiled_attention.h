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

template <class Isa>
void matrix_row(const float* x, int columns, int row, uint16_t* out) {
  const int steps = matrix_steps(columns);
  out += static_cast<size_t>(row / kTileRows) * steps * kStepEntries + row % kTileRows * kMatrixStep;
  for (int k = 0; k < columns; k += kMatrixStep, out += kStepEntries)
    for (int half = 0; half < kMatrixStep; half += kPanelRows) {
      const int count = columns - k - half;
      Isa::store_bf16(out + half, count >= kPanelRows ? Isa::load(x + k + half)
                                  : count > 0         ? load_tail<Isa>(x + k + half, count, 0.0f)
                                                      : Isa::set1(0.0f));
    }
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
