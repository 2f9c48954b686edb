// Quantized panels times one int8 row, the product of decoding: codes are taken apart in registers on their way from
// memory.
//
//   out[row] = sum over blocks of scale[row] * x_scale * (sum of code * a  -  zero_point[row] * sum of a)
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

// Sum of code * a over one block. Where products may use all eight bits of a byte, codes stay in place; where pairs of
// products must fit 16 bits (plain AVX2), each step's codes are taken out first.
template <class Isa, int kBits>
inline typename Isa::I block_dot(const uint8_t* block, const int32_t* x) {
  constexpr bool kSmall = kBits <= 4;
  if constexpr (Isa::kWideProducts && kBits == 3) {
    return block_of_three<Isa>(block, x);
  } else if constexpr (Isa::kWideProducts && kBits < 8) {
    return block_in_place<Isa, kBits>(block, x, std::make_integer_sequence<int, 8 / kBits>());
  } else {
    auto acc = Isa::broadcast(0);
    [&]<int... kStep>(std::integer_sequence<int, kStep...>) {
      ((acc = Isa::template dot<kSmall>(acc, step_codes<Isa, kBits, kStep>(block), x[kStep])), ...);
    }(std::make_integer_sequence<int, kSteps>());
    return Isa::template finish<kSmall>(acc);
  }
}

// Narrow codes leave too little time between two cache lines for the hardware to look far enough ahead, and their scales
// are a second stream: both are asked for this many bytes of codes early. Bytes are read fast enough without.
constexpr int kAhead = 8192;

template <int kBits>
inline void fetch_block(const uint8_t* block) {
  for (int i = 0; i < code_bytes(kBits); i += 64) __builtin_prefetch(block + i);
}

template <class Isa, class Storage>
inline void vector_panel(const QuantizedPanels& w, const QuantizedRows& x, int p, float* out, bool accumulate) {
  constexpr int kBits = Storage::kBits, kOffset = kBits <= 4 ? 0 : Isa::kByteOffset;
  const uint8_t* block = w.codes + static_cast<size_t>(p) * w.blocks * code_bytes(kBits);
  size_t g = static_cast<size_t>(p) * w.groups();
  auto acc = Isa::set1(0.0f);
  const size_t groups_ahead = kAhead / (static_cast<size_t>(w.blocks_per_group) * code_bytes(kBits));
  for (int first = 0; first < w.blocks; first += w.blocks_per_group, g++) {
    const Group<Isa, Storage, kOffset> group(w, g);
    if constexpr (kBits < 8) group.fetch(w, g + groups_ahead);
    const int last = first + w.blocks_per_group < w.blocks ? first + w.blocks_per_group : w.blocks;
    for (int b = first; b < last; b++, block += code_bytes(kBits)) {
      if constexpr (kBits < 8) fetch_block<kBits>(block + kAhead);
      acc = group.add(block_dot<Isa, kBits>(block, x.codes + b * kSteps), x.negated_sums[b], x.scales[b], acc);
    }
  }
  write_lanes<Isa>(out, acc, w.rows - p * kPanelRows, accumulate);
}

template <class Isa>
void quantized_vector(const QuantizedPanels& w, const QuantizedRows& x, PanelRange range, Output out) {
  with_storage(w, [&]<class Storage>() {
    for (int p = range.begin; p < range.end; p++)
      vector_panel<Isa, Storage>(w, x, p, out.values + (p - range.begin) * kPanelRows, out.accumulate);
  });
}

}  // namespace
