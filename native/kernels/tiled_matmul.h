// Quantized panels times many whole int8 rows on a matrix unit: 64 rows of activations (four tiles of sums) times one panel
// at a time, 64 columns a step. Sums leave the unit once a row, or once a group where groups have scales of their own.
//
// Rows lie one after the other (QuantizedRows::tile is 1) and can be read up to a multiple of 16; the panel's levels are
// in the order that the unit wants already: [four columns][16 lanes][4].
#pragma once

#include "quantized_matmul.h"
#include "tiles.h"

namespace {

constexpr int kSpanTiles = 4, kSpanRows = kSpanTiles * kTileRows;

// Runs visit<t>() for each of the first `count` of four tiles.
template <class Visit>
inline void for_tiles(int count, Visit visit) {
  visit.template operator()<0>();
  if (count > 1) visit.template operator()<1>();
  if (count > 2) visit.template operator()<2>();
  if (count > 3) visit.template operator()<3>();
}

// sums[row][lane] of the blocks [first, last), for `tiles` tiles of rows that begin at `codes`.
template <class Tiles>
inline void tile_sums(const uint8_t* levels, const int32_t* codes, int blocks, int first, int last, int tiles, int32_t* sums) {
  const size_t stride = static_cast<size_t>(blocks) * kBlock;
  const auto* rows = reinterpret_cast<const uint8_t*>(codes);
  for_tiles(tiles, []<int kTile>() { Tiles::template clear<kTile>(); });
  int b = first;
  for (; b + 2 <= last; b += 2) {
    Tiles::template load<kB>(levels + static_cast<size_t>(b) * code_bytes(8), kTileBytes);
    for_tiles(tiles, [&]<int kTile>() {
      Tiles::template load<kA>(rows + kTile * kTileRows * stride + b * kBlock, stride);
      Tiles::template multiply<kTile, kA, kB>();
    });
  }
  if (b < last) {
    Tiles::template load<kHalfB>(levels + static_cast<size_t>(b) * code_bytes(8), kTileBytes);
    for_tiles(tiles, [&]<int kTile>() {
      Tiles::template load<kHalfA>(rows + kTile * kTileRows * stride + b * kBlock, stride);
      Tiles::template multiply<kTile, kHalfA, kHalfB>();
    });
  }
  for_tiles(tiles, [&]<int kTile>() { Tiles::template store<kTile>(sums + kTile * kTileRows * kPanelRows, kTileBytes); });
}

// One panel times up to 64 rows.
template <class Isa, class Tiles>
inline void span_product(const SpreadPanel& w, int groups, const QuantizedRows& x, int first_row, int rows, Output out) {
  alignas(64) int32_t sums[kSpanRows * kPanelRows];
  alignas(64) float acc[kSpanRows * kPanelRows];
  const int32_t* codes = x.codes + static_cast<size_t>(first_row) * x.blocks * kSteps;
  const int32_t* negated_sums = x.negated_sums + static_cast<size_t>(first_row) * x.blocks;
  for (int g = 0; g < groups; g++) {
    const int first = g * w.blocks_per_group,
              last = first + w.blocks_per_group < w.blocks ? first + w.blocks_per_group : w.blocks;
    tile_sums<Tiles>(w.levels, codes, x.blocks, first, last, (rows + kTileRows - 1) / kTileRows, sums);
    const auto scale = Isa::load(w.scales + g * kPanelRows);
    for (int t = 0; t < rows; t++) {
      int32_t negated = 0;
      for (int b = first; b < last; b++) negated += negated_sums[t * x.blocks + b];
      const auto exact = exact_sum<Isa>(w, g, Isa::load_int(sums + t * kPanelRows), negated);
      const auto before = g == 0 ? Isa::set1(0.0f) : Isa::load(acc + t * kPanelRows);
      Isa::store(acc + t * kPanelRows, Isa::fma(exact, scale, before));
    }
  }
  for (int t = 0; t < rows; t++)
    write_lanes<Isa>(out.values + t * out.stride, Isa::mul(Isa::load(acc + t * kPanelRows), Isa::set1(x.scales[first_row + t])),
                     w.rows, out.accumulate);
}

// Rows that are not whole, or in tiles, take the products without a matrix unit.
template <class Isa, class Tiles>
void tiled_matmul(const QuantizedPanels& w, const QuantizedRows& x, PanelRange range, Output out, uint8_t* scratch) {
  if (!x.whole || x.tile != 1 || x.rows <= kFewRows) return quantized_matmul<Isa>(w, x, range, out, scratch);
  Tiles::begin();
  with_storage(w, [&]<class Storage>() {
    const Scratch room(scratch, w.blocks);
    for (int p = range.begin; p < range.end; p++, out.values += kPanelRows) {
      SpreadPanel panel;
      if constexpr (Storage::kMultiple)
        panel = spread_multiples<Isa, Storage>(w, p, room);
      else
        panel = spread_panel<Isa, Storage>(w, p, room, panel_levels<Isa, Storage>(w, p, room.levels));
      for (int row = 0; row < x.rows; row += kSpanRows) {
        const int rows = x.rows - row < kSpanRows ? x.rows - row : kSpanRows;
        span_product<Isa, Tiles>(panel, Storage::kMultiple ? 1 : w.groups(), x, row, rows,
                                 {out.values + row * out.stride, out.stride, out.accumulate});
      }
    }
  });
  Tiles::end();
}

}  // namespace
