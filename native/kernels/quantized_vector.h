// Quantized panels times one int8 row, the product of decoding: codes are taken apart in registers on their way from
// memory.
//
//   out[row] = sum over groups of scale[row] * x_scale * (sum of level * a  -  zero_point[row] * sum of a)
//
// With one x_scale for the whole row the sum stays whole over a group; with scales that are multiples of one, over the row.
#pragma once

#include "codes.h"

namespace {

// acc + sum of (code << kShift) * a, the codes being `kBits` bits that are left where they are in their bytes.
template <class Isa, int kBits, int kShift>
inline typename Isa::I dot_in_place(typename Isa::I acc, typename Isa::B bytes, int32_t x) {
  constexpr auto kMask = static_cast<uint8_t>(((1 << kBits) - 1) << kShift);
  return Isa::template dot<false>(acc, Isa::template field<0>(bytes, kMask), x);
}

// Two and four bits: one accumulator for each place in the byte, shifted back at the end.
template <class Isa, int kBits, int... kField>
inline typename Isa::I block_in_place(const uint8_t* block, const int32_t* x, std::integer_sequence<int, kField...>) {
  constexpr int kFields = sizeof...(kField);
  typename Isa::I acc[kFields];
  for (auto& sum : acc) sum = Isa::broadcast(0);
  for (int i = 0; i < kSteps / kFields; i++) {
    const auto bytes = Isa::load_bytes(block + i * kStepBytes);
    ((acc[kField] = dot_in_place<Isa, kBits, kField * kBits>(acc[kField], bytes, x[i * kFields + kField])), ...);
  }
  for (int f = 1; f < kFields; f++) acc[0] = Isa::add_int(acc[0], Isa::shift_right(acc[f], f * kBits));
  return acc[0];
}

// Three bits: see codes.h for which step lies where. A top bit stands for 4, so it is shifted back by two less.
template <class Isa>
inline typename Isa::I block_of_three(const uint8_t* block, const int32_t* x) {
  auto at0 = Isa::broadcast(0), at3 = at0, at6 = at0;
  for (int i = 0; i < 3; i++) {
    const auto bytes = Isa::load_bytes(block + i * kStepBytes);
    at0 = dot_in_place<Isa, 3, 0>(at0, bytes, x[2 * i]);
    at3 = dot_in_place<Isa, 3, 3>(at3, bytes, x[2 * i + 1]);
    if (i < 2) at6 = dot_in_place<Isa, 2, 6>(at6, bytes, x[6 + i]);
  }
  const auto tops = Isa::load_bytes(block + 2 * kStepBytes);
  const auto top6 = Isa::shift_right(dot_in_place<Isa, 1, 6>(Isa::broadcast(0), tops, x[6]), 4);
  const auto top7 = Isa::shift_right(dot_in_place<Isa, 1, 7>(Isa::broadcast(0), tops, x[7]), 5);
  const auto low = Isa::add_int(Isa::add_int(at0, Isa::shift_right(at3, 3)), Isa::shift_right(at6, 6));
  return Isa::add_int(low, Isa::add_int(top6, top7));
}

// Codes of rows that have tables of their own: 16 bytes of a sum are one row's, and are added up at the end.
template <class Isa, class Storage>
inline typename Isa::I block_of_tables(const uint8_t* block, const Tables<Isa, TableType::row>& tables, const int32_t* x) {
  typename Isa::I sums[4];
  for (auto& sum : sums) sum = Isa::broadcast(0);
  [&]<int... kStep>(std::integer_sequence<int, kStep...>) {
    ((sums[kStep % 4] =
          Isa::dot_sixteen(sums[kStep % 4], step_levels<Isa, Storage, kStep>(block, tables.of[kStep % 4]), x + kStep / 4 * 4)),
     ...);
  }(std::make_integer_sequence<int, kSteps>());
  return Isa::fold(sums);
}

// Sum of level * a over one block. Where products may use all eight bits of a byte, codes stay in place; where pairs of
// products must fit 16 bits (plain AVX2), and before a look-up, each step's codes are taken out first.
template <class Isa, class Storage>
inline typename Isa::I block_dot(const uint8_t* block, const Tables<Isa, Storage::kTable>& tables, const int32_t* x) {
  constexpr int kBits = Storage::kBits;
  constexpr bool kInPlace = Isa::kWideProducts && kBits < 8 && !Storage::kLooksUp;
  if constexpr (Storage::kTable == TableType::row) {
    return block_of_tables<Isa, Storage>(block, tables, x);
  } else if constexpr (kInPlace && kBits == 3) {
    return block_of_three<Isa>(block, x);
  } else if constexpr (kInPlace) {
    return block_in_place<Isa, kBits>(block, x, std::make_integer_sequence<int, 8 / kBits>());
  } else {
    auto acc = Isa::broadcast(0);
    for_steps<Isa, Storage>(block, tables, [&]<int kStep>(typename Isa::B levels) __attribute__((always_inline)) {
      acc = Isa::template dot<Storage::kSmall>(acc, levels, x[kStep]);
    });
    return Isa::template finish<Storage::kSmall>(acc);
  }
}

template <class Isa, class Storage>
inline typename Isa::F grouped_row(const QuantizedPanels& w, const QuantizedRows& x, int p) {
  const Groups<Isa, Storage, dot_offset<Isa, Storage>()> groups(w, p);
  const Tables<Isa, Storage::kTable> tables(w, p);
  const uint8_t* block = w.record(p) + w.codes_at;
  touch_lines(w.record(p), w.codes_at);
  auto acc = Isa::set1(0.0f);
  for (int first = 0, g = 0; first < w.blocks; first += w.blocks_per_group, g++) {
    const auto scale = groups.scale(g);
    const int last = first + w.blocks_per_group < w.blocks ? first + w.blocks_per_group : w.blocks;
    for (int b = first; b < last; b++, block += code_bytes(Storage::kBits)) {
      fetch_block<Storage::kBits>(block);
      const auto sum = block_dot<Isa, Storage>(block, tables, x.codes + b * kSteps);
      acc = Isa::fma(groups.exact(sum, x.negated_sums[b], g), Isa::mul(scale, Isa::set1(x.scales[b])), acc);
    }
  }
  return acc;
}

template <class Isa, class Storage>
inline typename Isa::F whole_row(const QuantizedPanels& w, const QuantizedRows& x, int p) {
  const Groups<Isa, Storage, dot_offset<Isa, Storage>()> groups(w, p);
  const Tables<Isa, Storage::kTable> tables(w, p);
  const uint8_t* block = w.record(p) + w.codes_at;
  touch_lines(w.record(p), w.codes_at);
  auto acc = Isa::set1(0.0f);
  auto total = Isa::broadcast(0);
  for (int first = 0, g = 0; first < w.blocks; first += w.blocks_per_group, g++) {
    const int last = first + w.blocks_per_group < w.blocks ? first + w.blocks_per_group : w.blocks;
    auto sum = Isa::broadcast(0);
    int32_t negated_sum = 0;
    for (int b = first; b < last; b++, block += code_bytes(Storage::kBits)) {
      fetch_block<Storage::kBits>(block);
      sum = Isa::add_int(sum, block_dot<Isa, Storage>(block, tables, x.codes + b * kSteps));
      negated_sum += x.negated_sums[b];
    }
    if constexpr (Storage::kMultiple)
      total = Isa::add_int(total, Isa::mul_int(groups.centred(sum, negated_sum), groups.multiple(g)));
    else
      acc = Isa::fma(groups.exact(sum, negated_sum, g), groups.scale(g), acc);
  }
  if constexpr (Storage::kMultiple) acc = Isa::mul(Isa::to_float(total), groups.row_scale());
  return Isa::mul(acc, Isa::set1(*x.scales));
}

template <class Isa>
void quantized_vector(const QuantizedPanels& w, const QuantizedRows& x, PanelRange range, Output out) {
  with_storage(w, [&]<class Storage>() {
    for (int p = range.begin; p < range.end; p++) {
      const auto sums = x.whole ? whole_row<Isa, Storage>(w, x, p) : grouped_row<Isa, Storage>(w, x, p);
      write_lanes<Isa>(out.values + (p - range.begin) * kPanelRows, sums, w.rows - p * kPanelRows, out.accumulate);
    }
  });
}

}  // namespace
