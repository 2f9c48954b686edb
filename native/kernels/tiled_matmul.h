// Quantized panels times many packed int8 rows on a matrix unit.
//
//   by row     one scale a row of weights and of activations: two tiles of rows times two panels over all columns; sums leave
//              the unit once, and leave the integers then
//   by group   one tile of rows times one panel: four groups' sums (or blocks', where activations have scales of their own)
//              leave the unit together, and are added up as floats in registers
//
// Products and the order of float sums are those of quantized_matmul.h, bit for bit. Levels whose zero is in the middle are
// centred as they are spread, so that groups need no correction.
#pragma once

#include "ahead.h"
#include "quantized_matmul.h"
#include "tiles.h"

namespace {

using bitwright::kPackedRows;

constexpr int kStepBlocks = kTileBytes / kBlock;  // blocks of columns that the unit takes at a time
constexpr int kTileSums = kTileRows * kTileLanes;

// Levels as bytes, centred or not, with zeros behind an odd number of blocks.
template <class Isa, class Storage, bool kCentred>
inline const uint8_t* tiled_levels(const QuantizedPanels& w, int p, uint8_t* scratch) {
  const uint8_t* codes = w.record(p) + w.codes_at;
  if (Storage::kBits == 8 && !kCentred && w.blocks % kStepBlocks == 0) return codes;
  const Tables<Isa, Storage::kTable> tables(w, p);
  constexpr uint8_t kMiddle = kCentred ? 1 << Storage::kMiddleBit : 0;
  for (int b = 0; b < w.blocks; b++)
    for_steps<Isa, Storage>(codes + b * code_bytes(Storage::kBits), tables, [&]<int kStep>(typename Isa::B levels) {
      Isa::store_bytes(scratch + b * code_bytes(8) + kStep * kStepBytes, Isa::template subtract<kMiddle>(levels));
    });
  if (w.blocks % kStepBlocks != 0) std::memset(scratch + static_cast<size_t>(w.blocks) * code_bytes(8), 0, code_bytes(8));
  return scratch;
}

constexpr int kSpanRows = 2 * kTileRows;

// Sums of a span, [tile of rows][panel], leave the integers.
template <class Isa, int kPanels, bool kZeros, bool kAccumulate>
inline void write_span(const SpreadPanel* w, const QuantizedRows& x, int first_row, const int32_t (*sums)[kTileSums], float* out,
                       ptrdiff_t stride) {
  const int32_t* negated = x.negated_totals + first_row;
  const float* scales = x.scales + first_row;
  alignas(64) int32_t corrections[kSpanRows];
  typename Isa::F scale[kPanels], zero[kPanels];
  for (int p = 0; p < kPanels; p++) scale[p] = Isa::load(w[p].scales), zero[p] = kZeros ? Isa::load(w[p].zeros) : scale[p];
  const auto middle = Isa::broadcast(w->middle);
  for (int t = 0; t < kSpanRows && !kZeros; t += kPanelRows)
    Isa::store_int(corrections + t, Isa::mul_int(Isa::load_int(negated + t), middle));
  const bool whole = w[kPanels - 1].rows >= kPanelRows;
  const auto write = [&](int row, const int32_t* tile, bool full, float* to) {
    const auto row_scale = Isa::set1(scales[row]);
    for (int p = 0; p < kPanels; p++) {
      const auto sum = Isa::load_int(tile + p * kTileSums);
      const auto exact = kZeros ? Isa::fma(zero[p], Isa::set1(static_cast<float>(negated[row])), Isa::to_float(sum))
                                : Isa::to_float(Isa::add_int(sum, Isa::broadcast(corrections[row])));
      const auto product = Isa::mul(Isa::mul(exact, scale[p]), row_scale);
      write_lanes<Isa>(to + p * kPanelRows, product, full ? kPanelRows : w[p].rows, kAccumulate);
    }
  };
  const int rows = x.rows - first_row < kSpanRows ? x.rows - first_row : kSpanRows;
  for (int first = 0; first < rows; first += kTileRows, sums += kPanels, out += kTileRows * stride) {
    if (whole && rows - first >= kTileRows) {
#pragma GCC unroll 4
      for (int t = 0; t < kTileRows; t++) write(first + t, *sums + t * kTileLanes, true, out + t * stride);
    } else {
      for (int t = 0; t < kTileRows && first + t < rows; t++) write(first + t, *sums + t * kTileLanes, false, out + t * stride);
    }
  }
}

// Two tiles of rows times two panels, or one of either.
template <class Isa, class Tiles, int kTiles, int kPanels>
inline void row_span(const SpreadPanel* w, const QuantizedRows& x, int first_row, Output out, Ahead& ahead) {
  sum_products<Tiles, kTiles, kPanels>(
      x.target(first_row).codes, x.tile_codes() * sizeof(int32_t), w[0].levels, w[kPanels - 1].levels,
      (x.blocks + kStepBlocks - 1) / kStepBlocks,
      []<int kSum, int kLeft, int kRight>() { Tiles::template multiply<kSum, kLeft, kRight, false>(); }, [&] { ahead.step(); });
  alignas(64) int32_t sums[kTiles * kPanels][kTileSums];
  for_tiles(kTiles * kPanels, [&]<int kTile>() { Tiles::template store<kTile>(sums[kTile], kTileBytes); });
  float* to = out.values + first_row * out.stride;
  if (w->zeros != nullptr)
    out.accumulate ? write_span<Isa, kPanels, true, true>(w, x, first_row, sums, to, out.stride)
                   : write_span<Isa, kPanels, true, false>(w, x, first_row, sums, to, out.stride);
  else
    out.accumulate ? write_span<Isa, kPanels, false, true>(w, x, first_row, sums, to, out.stride)
                   : write_span<Isa, kPanels, false, false>(w, x, first_row, sums, to, out.stride);
}

template <class Isa, class Tiles, int kPanels>
inline void multiply_by_row(const SpreadPanel* w, const QuantizedRows& x, Output out) {
  const int spans = (x.rows + kSpanRows - 1) / kSpanRows, steps = (x.blocks + kStepBlocks - 1) / kStepBlocks;
  Ahead ahead({{w[kPanels - 1].next, 2 * w[0].next_bytes}}, spans * steps);
  for (int row = 0; row < x.rows; row += kSpanRows) {
    if (x.rows - row > kTileRows)
      row_span<Isa, Tiles, 2, kPanels>(w, x, row, out, ahead);
    else
      row_span<Isa, Tiles, 1, kPanels>(w, x, row, out, ahead);
  }
}

// One tile of rows times one panel. kBlocks columns of blocks go into the unit at a time.
template <class Isa, class Tiles, bool kWhole, bool kCentred, int kBlocks>
struct GroupSpan {
  const SpreadPanel& w;
  const QuantizedRows& x;
  const int first_row;
  const RowTarget rows = x.target(first_row);
  const int step = kWhole ? w.blocks_per_group : 1;  // blocks between two visits to the floats
  const int visits = (w.blocks + step - 1) / step;

  // The unit adds up what the next four visits want.
  void add_up(int first) const {
    for_tiles(visits - first, [&]<int kTile>() {
      const int begin = (first + kTile) * step, end = begin + step < w.blocks ? begin + step : w.blocks;
      Tiles::template clear<kTile>();
      for (int b = begin; b < end; b += kBlocks) {
        Tiles::template load<kA + kTile % 2>(rows.block(b), kTileBytes);
        Tiles::template load<kB + kTile % 2>(w.levels + static_cast<size_t>(b) * code_bytes(8), kTileBytes);
        Tiles::template multiply<kTile, kA + kTile % 2, kB + kTile % 2, kCentred>();
      }
    });
  }

  [[gnu::always_inline]] void visit(int index, const int32_t* sums, typename Isa::F* acc) const {
    const int begin = index * step, g = begin / w.blocks_per_group;
    auto scale = Isa::load(w.scales + (w.multiples == nullptr ? g * kPanelRows : 0));
    if (w.multiples != nullptr) scale = Isa::mul(scale, Isa::to_float(Isa::load_int8_lanes(w.multiples + g * kPanelRows)));
    const float* row_scales = x.scales + static_cast<size_t>(first_row) * x.blocks + begin * kPackedRows;
    alignas(64) int32_t negated[kTileRows];
    if constexpr (!kCentred) {
      auto sum = Isa::broadcast(0);
      for (int b = begin; b < begin + step && b < w.blocks; b++)
        sum = Isa::add_int(sum, Isa::load_int(rows.negated_sums + b * kPackedRows));
      Isa::store_int(negated, sum);
    }
#pragma GCC unroll 16
    for (int t = 0; t < kTileRows; t++) {
      const auto sum = Isa::load_int(sums + t * kTileLanes);
      const auto exact = kCentred ? Isa::to_float(sum) : exact_sum<Isa>(w, g, sum, negated[t]);
      const auto factor = kWhole ? scale : Isa::mul(scale, Isa::set1(row_scales[t]));
      acc[t] = Isa::fma(exact, factor, acc[t]);
    }
  }

  // Four visits' sums leave the unit together.
  void write(Output out) const {
    alignas(64) int32_t sums[4][kTileSums];
    typename Isa::F acc[kTileRows];
#pragma GCC unroll 16
    for (int t = 0; t < kTileRows; t++) acc[t] = Isa::set1(0.0f);
    for (int first = 0; first < visits; first += 4) {
      add_up(first);
      for_tiles(visits - first, [&]<int kTile>() { Tiles::template store<kTile>(sums[kTile], kTileBytes); });
      for (int i = 0; i < 4 && first + i < visits; i++) visit(first + i, sums[i], acc);
    }
    for (int t = 0; t < kTileRows && first_row + t < x.rows; t++)
      write_lanes<Isa>(out.values + (first_row + t) * out.stride,
                       kWhole ? Isa::mul(acc[t], Isa::set1(x.scales[first_row + t])) : acc[t], w.rows, out.accumulate);
  }
};

template <class Isa, class Tiles, bool kCentred>
inline void multiply_by_group(const SpreadPanel& w, const QuantizedRows& x, bool halves, Output out) {
  for (int row = 0; row < x.rows; row += kTileRows) {
    if (!x.whole)
      GroupSpan<Isa, Tiles, false, kCentred, 1>{w, x, row}.write(out);
    else if (halves)
      GroupSpan<Isa, Tiles, true, kCentred, 1>{w, x, row}.write(out);
    else
      GroupSpan<Isa, Tiles, true, kCentred, kStepBlocks>{w, x, row}.write(out);
  }
}

// Room for two panels, in whole cache lines.
struct TiledScratch {
  uint8_t* levels[2];
  float *scales[2], *zeros[2];
  TiledScratch(uint8_t* memory, int blocks) {
    memory += -reinterpret_cast<uintptr_t>(memory) % 64;
    const size_t padded = static_cast<size_t>((blocks + 1) / 2 * 2);
    for (int p = 0; p < 2; p++) {
      levels[p] = memory;
      scales[p] = reinterpret_cast<float*>(memory + padded * code_bytes(8));
      zeros[p] = scales[p] + padded * kPanelRows;
      memory = reinterpret_cast<uint8_t*>(zeros[p] + padded * kPanelRows);
    }
  }
  Scratch of(int p) const { return {levels[p], scales[p], zeros[p]}; }
};

template <class Isa, class Tiles, class Storage>
inline void tiled_by_row(const QuantizedPanels& w, const QuantizedRows& x, PanelRange range, Output out,
                         const TiledScratch& room) {
  const auto spread = [&](int p, const Scratch& at) {
    if constexpr (Storage::kMultiple) {
      const SpreadPanel panel = spread_multiples<Isa, Storage>(w, p, at);
      if (w.blocks % kStepBlocks != 0) std::memset(at.levels + static_cast<size_t>(w.blocks) * code_bytes(8), 0, code_bytes(8));
      return panel;
    } else {
      return spread_panel<Isa, Storage>(w, p, at, tiled_levels<Isa, Storage, false>(w, p, at.levels));
    }
  };
  for (int p = range.begin; p < range.end; p += 2, out.values += 2 * kPanelRows) {
    SpreadPanel panels[2] = {spread(p, room.of(0)), {}};
    if (p + 1 == range.end) {
      multiply_by_row<Isa, Tiles, 1>(panels, x, out);
    } else {
      panels[1] = spread(p + 1, room.of(1));
      multiply_by_row<Isa, Tiles, 2>(panels, x, out);
    }
  }
}

template <class Isa, class Tiles>
void tiled_matmul(const QuantizedPanels& w, const QuantizedRows& x, PanelRange range, Output out, uint8_t* scratch) {
  if (!x.packed) return quantized_matmul<Isa>(w, x, range, out, scratch);
  const TiledScratch room(scratch, w.blocks);
  const int rows = x.rows < kTileRows ? x.rows : kTileRows;
  with_storage(w, [&]<class Storage>() {
    constexpr bool kCentred = Storage::kZero == ZeroType::middle;
    if (x.whole && (Storage::kMultiple || w.groups() == 1)) {
      Tiles::begin(TileShapes(rows, kTileBytes));
      tiled_by_row<Isa, Tiles, Storage>(w, x, range, out, room);
    } else {
      const bool halves = !x.whole || w.blocks_per_group % kStepBlocks != 0;
      Tiles::begin(TileShapes(rows, halves ? kBlock : kTileBytes));
      for (int p = range.begin; p < range.end; p++, out.values += kPanelRows) {
        const Scratch at = room.of(0);
        multiply_by_group<Isa, Tiles, kCentred>(
            spread_panel<Isa, Storage>(w, p, at, tiled_levels<Isa, Storage, kCentred>(w, p, at.levels)), x, halves, out);
      }
    }
  });
  Tiles::end();
}

}  // namespace
