// Quantized panels times many int8 rows, the product of reading a prompt: panels are spread to bytes once and reused for
// all rows, a tile of them at a time.
//
//   by group    sums leave the integers at every group (or block, where activations have scales of their own)
//   few rows    taken apart in registers on their way from memory, as for one row
//   by row      one activation scale a row, and weights that are whole numbers under one scale a row: sums stay integers
//               over the whole row; multiples go into the bytes: byte = (level - middle) * multiple + 128
//
// Scales and zero points are turned to floats once a panel, so that the loops over tokens exist once for all storages.
#pragma once

#include "codes.h"

namespace {

// One panel as the tiles read it.
struct SpreadPanel {
  const uint8_t* levels;    // [block][step][64]
  const float* scales;      // [group][16]; with multiples the row's [16]
  const float* zeros;       // [group][16], or null: `middle` is zero for all
  const int8_t* multiples;  // [group][16], or null
  int32_t middle;
  int rows, blocks, blocks_per_group;
  const uint8_t* next = nullptr;  // what comes after this panel's record, asked for from memory while this one is computed
  size_t next_bytes = 0;

  // One line of it at each step of four columns: a record has at most as many lines as steps, and its scales'.
  void fetch(int step) const {
    const size_t at = static_cast<size_t>(step) * 64;
    if (at < next_bytes) __builtin_prefetch(next + at);
  }
};

// Sum of (level - zero point) * a, where `sum` is that of (level - what the dot product takes off) * a.
template <class Isa>
inline typename Isa::F exact_sum(const SpreadPanel& w, int group, typename Isa::I sum, int32_t negated_sum) {
  if (w.zeros == nullptr) return Isa::to_float(Isa::add_int(sum, Isa::broadcast(negated_sum * w.middle)));
  return Isa::fma(Isa::load(w.zeros + group * kPanelRows), Isa::set1(static_cast<float>(negated_sum)), Isa::to_float(sum));
}

// The same of a sum that began with what the middle adds to it; zero points ask for the sum of the codes.
template <class Isa, class Negated>
inline typename Isa::F begun_sum(const SpreadPanel& w, int group, typename Isa::I sum, const Negated& negated_sum) {
  return w.zeros == nullptr ? Isa::to_float(sum) : exact_sum<Isa>(w, group, sum, negated_sum());
}

// Of the blocks [first, last), as far as there are any.
inline int32_t sum_of_blocks(const int32_t* sums, const SpreadPanel& w, int first, int last) {
  int32_t total = 0;
  for (int b = first; b < last && b < w.blocks; b++) total += sums[b];
  return total;
}

// One tile of activations and where its products go. All of kTokens are computed, `tokens` of them are written.
struct Tile {
  const int32_t *codes, *negated_sums;
  const float* scales;
  int stride, tokens;
  Output out;
  Tile(const QuantizedRows& x, int first_row, int tokens, Output out) : stride(x.tile), tokens(tokens), out(out) {
    const size_t base = static_cast<size_t>(first_row) * x.blocks;
    codes = x.codes + base * kSteps;
    negated_sums = x.negated_sums + base;
    scales = x.scales + (x.whole ? first_row : base);
  }
};

template <class Isa>
inline void write_product(const Tile& x, int token, const SpreadPanel& w, typename Isa::F sum) {
  if (token < x.tokens) write_lanes<Isa>(x.out.values + token * x.out.stride, sum, w.rows, x.out.accumulate);
}

template <class Isa, bool kSmall, bool kWhole, int kTokens>
inline void tile_by_group(const SpreadPanel& w, Tile x) {
  const int step = kWhole ? w.blocks_per_group : 1;  // blocks between two visits to the floats
  const uint8_t* levels = w.levels;
  typename Isa::F acc[kTokens];
  typename Isa::I row[kTokens];
  for (int t = 0; t < kTokens; t++) acc[t] = Isa::set1(0.0f), row[t] = Isa::broadcast(0);
  for (int first = 0; first < w.blocks; first += step) {
    const int g = first / w.blocks_per_group, last = first + step < w.blocks ? first + step : w.blocks;
    typename Isa::I group[kTokens];
    int32_t negated[kTokens] = {};
    for (int t = 0; t < kTokens; t++) group[t] = Isa::broadcast(0);
    for (int b = first; b < last; b++, x.negated_sums += x.stride) {
      typename Isa::I sum[kTokens];
      for (int t = 0; t < kTokens; t++) sum[t] = Isa::broadcast(0), negated[t] += x.negated_sums[t];
      for (int j = 0; j < kSteps; j++, levels += kStepBytes, x.codes += x.stride) {
        if constexpr (kTokens > 4) w.fetch(b * kSteps + j);  // with fewer, memory is read fast enough
        const auto four = Isa::load_bytes(levels);
        for (int t = 0; t < kTokens; t++) sum[t] = Isa::template dot<kSmall>(sum[t], four, x.codes[t]);
      }
      for (int t = 0; t < kTokens; t++) group[t] = Isa::add_int(group[t], Isa::template finish<kSmall>(sum[t]));
    }
    if (kWhole && w.multiples != nullptr) {
      const auto multiple = Isa::load_int8_lanes(w.multiples + g * kPanelRows);
      for (int t = 0; t < kTokens; t++)
        row[t] = Isa::add_int(row[t], Isa::mul_int(Isa::add_int(group[t], Isa::broadcast(negated[t] * w.middle)), multiple));
      continue;
    }
    auto scale = Isa::load(w.scales + (w.multiples == nullptr ? g * kPanelRows : 0));
    if (w.multiples != nullptr) scale = Isa::mul(scale, Isa::to_float(Isa::load_int8_lanes(w.multiples + g * kPanelRows)));
    for (int t = 0; t < kTokens; t++) {
      const auto factor = kWhole ? scale : Isa::mul(scale, Isa::set1(x.scales[t]));
      acc[t] = Isa::fma(exact_sum<Isa>(w, g, group[t], negated[t]), factor, acc[t]);
    }
    if (!kWhole) x.scales += x.stride;
  }
  for (int t = 0; t < kTokens; t++) {
    if (kWhole && w.multiples != nullptr) acc[t] = Isa::mul(Isa::to_float(row[t]), Isa::load(w.scales));
    write_product<Isa>(x, t, w, kWhole ? Isa::mul(acc[t], Isa::set1(x.scales[t])) : acc[t]);
  }
}

template <class Isa, bool kSmall, int kTokens>
inline void tile_by_row(const SpreadPanel& w, Tile x) {
  typename Isa::I sum[kTokens];
  int32_t negated[kTokens] = {};
  for (int t = 0; t < kTokens; t++) sum[t] = Isa::broadcast(0);
  for (int j = 0; j < w.blocks * kSteps; j++, x.codes += x.stride) {
    if constexpr (kTokens > 4) w.fetch(j);
    const auto four = Isa::load_bytes(w.levels + static_cast<size_t>(j) * kStepBytes);
    for (int t = 0; t < kTokens; t++) sum[t] = Isa::template dot<kSmall>(sum[t], four, x.codes[t]);
  }
  for (int b = 0; b < w.blocks; b++, x.negated_sums += x.stride)
    for (int t = 0; t < kTokens; t++) negated[t] += x.negated_sums[t];
  const auto scale = Isa::load(w.scales);
  for (int t = 0; t < kTokens; t++) {
    const auto exact = exact_sum<Isa>(w, 0, Isa::template finish<kSmall>(sum[t]), negated[t]);
    write_product<Isa>(x, t, w, Isa::mul(Isa::mul(exact, scale), Isa::set1(x.scales[t])));
  }
}

// Tiles come in few sizes, the next larger one computing some tokens that nobody reads.
template <int kMost, class Visit>
inline void with_tile(int tokens, Visit visit) {
  if constexpr (kMost > 8)
    if (tokens <= 8) return with_tile<8>(tokens, visit);
  if constexpr (kMost <= 8 && kMost > 1)
    if (tokens <= kMost / 2) return with_tile<kMost / 2>(tokens, visit);
  visit.template operator()<kMost>();
}

// Room for the panel at hand: levels, scales and zero points.
struct Scratch {
  uint8_t* levels;
  float *scales, *zeros;
};

inline Scratch scratch_of(uint8_t* memory, int blocks) {
  auto* scales = reinterpret_cast<float*>(memory + static_cast<size_t>(blocks) * code_bytes(8));
  return {memory, scales, scales + blocks * kPanelRows};
}

// Scales and zero points of a panel as floats; its levels are at `levels`.
template <class Isa, class Storage>
inline SpreadPanel spread_panel(const QuantizedPanels& w, int p, Scratch room, const uint8_t* levels) {
  constexpr int kOffset = dot_offset<Isa, Storage>();
  const Groups<Isa, Storage, kOffset> groups(w, p);
  const bool zeros = Storage::kZero != ZeroType::middle;
  for (int g = 0; g < (Storage::kMultiple ? 0 : w.groups()); g++) {
    Isa::store(room.scales + g * kPanelRows, groups.scale(g));
    if (zeros) Isa::store(room.zeros + g * kPanelRows, groups.zero_point(g));
  }
  return {levels,
          Storage::kMultiple ? reinterpret_cast<const float*>(groups.scales) : room.scales,
          zeros ? room.zeros : nullptr,
          Storage::kMultiple ? reinterpret_cast<const int8_t*>(groups.zeros) : nullptr,
          (1 << Storage::kMiddleBit) - kOffset,
          w.rows - p * kPanelRows,
          w.blocks,
          w.blocks_per_group,
          w.record(p + 1),
          w.record_bytes};
}

// With its multiples in the bytes.
template <class Isa, class Storage>
inline SpreadPanel spread_multiples(const QuantizedPanels& w, int p, Scratch room) {
  const Groups<Isa, Storage> groups(w, p);
  const uint8_t* codes = w.record(p) + w.codes_at;
  for (int b = 0; b < w.blocks; b++) {
    const auto multiple = groups.multiple(b / w.blocks_per_group);
    [&]<int... kStep>(std::integer_sequence<int, kStep...>) {
      (Isa::store_bytes(room.levels + (b * kSteps + kStep) * kStepBytes,
                        Isa::template multiply_bytes<(1 << Storage::kMiddleBit)>(
                            step_codes<Isa, Storage::kBits, kStep>(codes + b * code_bytes(Storage::kBits)), multiple)),
       ...);
    }(std::make_integer_sequence<int, kSteps>());
  }
  const auto* scales = reinterpret_cast<const float*>(groups.scales);
  return {room.levels, scales,   nullptr,         nullptr,       128 - Isa::kByteOffset, w.rows - p * kPanelRows,
          w.blocks,    w.blocks, w.record(p + 1), w.record_bytes};
}

// One panel times all rows.
template <class Isa, bool kSmall>
inline void multiply_panel(SpreadPanel w, bool by_row, const QuantizedRows& x, Output out) {
  for (int row = 0; row < x.rows; row += x.tile) {
    const Tile tile(x, row, x.rows - row, {out.values + row * out.stride, out.stride, out.accumulate});
    with_tile<Isa::kTile>(tile.tokens, [&]<int kTokens>() {
      if (by_row)
        tile_by_row<Isa, kSmall, kTokens>(w, tile);
      else if (x.whole)
        tile_by_group<Isa, kSmall, true, kTokens>(w, tile);
      else
        tile_by_group<Isa, kSmall, false, kTokens>(w, tile);
    });
    w.next_bytes = 0;
  }
}

// Calls visit(0), visit(1) .. with numbers that the compiler knows: what lies in arrays by them stays in registers.
template <int kCount, class Visit>
[[gnu::always_inline]] inline void each(const Visit& visit) {
  [&]<int... k>(std::integer_sequence<int, k...>) __attribute__((always_inline)) {
    (visit(std::integral_constant<int, k>()), ...);
  }(std::make_integer_sequence<int, kCount>());
}

// sums[t] + sum of level * a over one block whose levels are still codes, for rows `stride` apart.
template <class Isa, class Codes, int kTokens>
[[gnu::always_inline]] inline void add_block(const uint8_t* block, const Tables<Isa, Codes::kTable>& tables, const int32_t* codes,
                                             size_t stride, typename Isa::I* sums) {
  constexpr bool kStraight = Isa::kLongSums || !Codes::kSmall;  // no need to finish at every block
  fetch_block<Codes::kBits>(block);
  typename Isa::I now[kTokens];
  const int32_t* at[kTokens];
  each<kTokens>([&](auto t) __attribute__((always_inline)) {
    now[t] = kStraight ? sums[t] : Isa::broadcast(0);
    at[t] = codes + t * stride;
    asm("" : "+r"(at[t]));  // a register a row: g++ 12 else keeps one for each row and step, on the stack
  });
  for_steps<Isa, Codes>(block, tables, [&]<int kStep>(typename Isa::B levels) __attribute__((always_inline)) {
    each<kTokens>(
        [&](auto t) __attribute__((always_inline)) { now[t] = Isa::template dot<Codes::kSmall>(now[t], levels, at[t][kStep]); });
  });
  each<kTokens>([&](auto t) __attribute__((always_inline)) {
    sums[t] = kStraight ? now[t] : Isa::add_int(sums[t], Isa::template finish<Codes::kSmall>(now[t]));
  });
}

// Where the sums of few rows begin, [row][group], or [row][block] where every block has an activation scale: at what the middle
// of the levels adds to them. At zero where there are zero points.
inline void begin_sums(const SpreadPanel& w, const QuantizedRows& x, int32_t* begins) {
  const int step = x.whole ? w.blocks_per_group : 1, middle = w.zeros == nullptr ? w.middle : 0;
  for (int row = 0; row < x.rows; row++)
    for (int first = 0; first < w.blocks; first += step)
      *begins++ = middle * sum_of_blocks(x.negated_sums + static_cast<size_t>(row) * w.blocks, w, first, first + step);
}

// Few rows, one after the other, up to a multiple of kTokens of which the last are computed and not written. What is done to
// the sums is what `tile_by_group` does: here where every block has an activation scale of its own ...
template <class Isa, class Codes, int kTokens>
inline void few_by_block(const SpreadPanel& w, const Tables<Isa, Codes::kTable>& tables, const QuantizedRows& x, int first_row,
                         const int32_t* begins, Output out) {
  const size_t blocks = w.blocks, at = first_row * blocks;
  const float* scales = x.scales + at;
  const int32_t *codes = x.codes + at * kSteps, *negated_sums = x.negated_sums + at;
  const uint8_t* block = w.levels;
  begins += at;
  typename Isa::F acc[kTokens];
  each<kTokens>([&](auto t) __attribute__((always_inline)) { acc[t] = Isa::set1(0.0f); });
  for (int first = 0, g = 0; first < w.blocks; first += w.blocks_per_group, g++) {
    auto scale = Isa::load(w.scales + (w.multiples == nullptr ? g * kPanelRows : 0));
    if (w.multiples != nullptr) scale = Isa::mul(scale, Isa::to_float(Isa::load_int8_lanes(w.multiples + g * kPanelRows)));
    const int last = first + w.blocks_per_group < w.blocks ? first + w.blocks_per_group : w.blocks;
    for (int b = first; b < last; b++, block += code_bytes(Codes::kBits), codes += kSteps) {
      typename Isa::I sums[kTokens];
      each<kTokens>([&](auto t) __attribute__((always_inline)) { sums[t] = Isa::broadcast(begins[t * blocks + b]); });
      add_block<Isa, Codes, kTokens>(block, tables, codes, blocks * kSteps, sums);
      each<kTokens>([&](auto t) __attribute__((always_inline)) {
        const auto exact = begun_sum<Isa>(w, g, sums[t], [&] { return negated_sums[t * blocks + b]; });
        acc[t] = Isa::fma(exact, Isa::mul(scale, Isa::set1(scales[t * blocks + b])), acc[t]);
      });
    }
  }
  each<kTokens>([&](auto t) __attribute__((always_inline)) {
    if (first_row + t < x.rows) write_lanes<Isa>(out.values + (first_row + t) * out.stride, acc[t], w.rows, out.accumulate);
  });
}

// ... and here where a row has one.
template <class Isa, class Codes, int kTokens>
inline void few_whole(const SpreadPanel& w, const Tables<Isa, Codes::kTable>& tables, const QuantizedRows& x, int first_row,
                      const int32_t* begins, Output out) {
  const size_t blocks = w.blocks, at = first_row * blocks;
  const int32_t *codes = x.codes + at * kSteps, *negated_sums = x.negated_sums + at;
  const uint8_t* block = w.levels;
  const int groups = (w.blocks + w.blocks_per_group - 1) / w.blocks_per_group;
  begins += static_cast<size_t>(first_row) * groups;
  typename Isa::F acc[kTokens];
  typename Isa::I totals[kTokens];
  each<kTokens>([&](auto t) __attribute__((always_inline)) { acc[t] = Isa::set1(0.0f), totals[t] = Isa::broadcast(0); });
  for (int first = 0, g = 0; first < w.blocks; first += w.blocks_per_group, g++) {
    const int last = first + w.blocks_per_group < w.blocks ? first + w.blocks_per_group : w.blocks;
    typename Isa::I sums[kTokens];
    each<kTokens>([&](auto t) __attribute__((always_inline)) { sums[t] = Isa::broadcast(begins[t * groups + g]); });
    for (int b = first; b < last; b++, block += code_bytes(Codes::kBits), codes += kSteps)
      add_block<Isa, Codes, kTokens>(block, tables, codes, blocks * kSteps, sums);
    if (w.multiples != nullptr) {
      const auto multiple = Isa::load_int8_lanes(w.multiples + g * kPanelRows);
      each<kTokens>([&](auto t)
                        __attribute__((always_inline)) { totals[t] = Isa::add_int(totals[t], Isa::mul_int(sums[t], multiple)); });
      continue;
    }
    const auto scale = Isa::load(w.scales + g * kPanelRows);
    each<kTokens>([&](auto t) __attribute__((always_inline)) {
      const auto negated = [&] { return sum_of_blocks(negated_sums + t * blocks, w, first, last); };
      acc[t] = Isa::fma(begun_sum<Isa>(w, g, sums[t], negated), scale, acc[t]);
    });
  }
  each<kTokens>([&](auto t) __attribute__((always_inline)) {
    if (first_row + t >= x.rows) return;
    if (w.multiples != nullptr) acc[t] = Isa::mul(Isa::to_float(totals[t]), Isa::load(w.scales));
    write_lanes<Isa>(out.values + (first_row + t) * out.stride, Isa::mul(acc[t], Isa::set1(x.scales[first_row + t])), w.rows,
                     out.accumulate);
  });
}

constexpr int kTogetherRows = 8;  // whose sums and places stay in registers

template <class Isa, class Codes>
inline void multiply_few(const SpreadPanel& w, const Tables<Isa, Codes::kTable>& tables, const QuantizedRows& x,
                         const int32_t* begins, Output out) {
  constexpr int kMost = Isa::kTile < kTogetherRows ? Isa::kTile : kTogetherRows;
  for (int row = 0; row < x.rows; row += kMost)
    with_tile<kMost>(x.rows - row, [&]<int kTokens>() {
      if (x.whole)
        few_whole<Isa, Codes, kTokens>(w, tables, x, row, begins, out);
      else
        few_by_block<Isa, Codes, kTokens>(w, tables, x, row, begins, out);
    });
}

template <class Isa>
void quantized_matmul(const QuantizedPanels& w, const QuantizedRows& x, PanelRange range, Output out, uint8_t* scratch) {
  with_storage(w, [&]<class Storage>() {
    constexpr bool kLongSums = Isa::kLongSums || !Storage::kSmall;
    const bool by_row = kLongSums && x.whole && (Storage::kMultiple || w.groups() == 1);
    const Scratch room = scratch_of(scratch, w.blocks);
    if (x.tile == 1) {
      auto* begins = reinterpret_cast<int32_t*>(room.levels);  // where no levels are spread
      for (int p = range.begin; p < range.end; p++, out.values += kPanelRows) {
        touch_lines(w.record(p), w.codes_at);
        const SpreadPanel panel = spread_panel<Isa, Storage>(w, p, room, w.record(p) + w.codes_at);
        if (p == range.begin) begin_sums(panel, x, begins);
        multiply_few<Isa, Codes<Storage::kBits, Storage::kTable>>(panel, {w, p}, x, begins, out);
      }
      return;
    }
    for (int p = range.begin; p < range.end; p++, out.values += kPanelRows) {
      if (by_row && Storage::kMultiple)
        multiply_panel<Isa, false>(spread_multiples<Isa, Storage>(w, p, room), true, x, out);
      else
        multiply_panel<Isa, Storage::kSmall>(
            spread_panel<Isa, Storage>(w, p, room, panel_levels<Isa, Storage>(w, p, room.levels)), by_row, x, out);
    }
  });
}

}  // namespace
