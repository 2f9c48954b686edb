// How a panel's record lies in memory, and one group's scale and zero point.
//
// A record holds the panel's scales, then its zero points (or multiples), then its codes, each part on a cache line of its own.
//
// Order of codes inside a block of 16 rows x 32 columns. Step j (0 .. 7) covers columns 4j .. 4j + 3; its 64 bytes are
// [row][column % 4]. Eight-bit blocks hold the eight steps in turn. Two and four bits share bytes: with f = 8 / bits
// fields a byte, vector i holds steps i*f .. i*f + f - 1, the first in the lowest bits. Three bits take three vectors:
//
//            bits 0-2   bits 3-5   bits 6-7
//   vector 0 step 0     step 1     low bits of step 6
//   vector 1 step 2     step 3     low bits of step 7
//   vector 2 step 4     step 5     top bit of step 6 (bit 6) and of step 7 (bit 7)
#pragma once

#include <utility>

#include "bitwright/kernels.h"
#include "dense.h"

namespace {

using bitwright::code_bytes;
using bitwright::kBlock;
using bitwright::kFewRows;
using bitwright::QuantizedPanels;
using bitwright::QuantizedRows;
using bitwright::RowTarget;
using bitwright::ScaleType;
using bitwright::ZeroType;

constexpr int kSteps = kBlock / 4;
constexpr int kStepBytes = kPanelRows * 4;

template <class Isa, int kBits, int kStep>
inline typename Isa::B step_codes(const uint8_t* block) {
  if constexpr (kBits == 8) return Isa::load_bytes(block + kStep * kStepBytes);
  if constexpr (kBits == 4) return Isa::template field<kStep % 2 * 4>(Isa::load_bytes(block + kStep / 2 * kStepBytes), 15);
  if constexpr (kBits == 2) return Isa::template field<kStep % 4 * 2>(Isa::load_bytes(block + kStep / 4 * kStepBytes), 3);
  if constexpr (kStep < 6) return Isa::template field<kStep % 2 * 3>(Isa::load_bytes(block + kStep / 2 * kStepBytes), 7);
  const auto low = Isa::template field<6>(Isa::load_bytes(block + (kStep - 6) * kStepBytes), 3);
  return Isa::either(low, Isa::template field<kStep - 2>(Isa::load_bytes(block + 2 * kStepBytes), 4));
}

template <class Isa, int kBits, int... kStep>
inline void spread_block(const uint8_t* block, uint8_t* bytes, std::integer_sequence<int, kStep...>) {
  (Isa::store_bytes(bytes + kStep * kStepBytes, step_codes<Isa, kBits, kStep>(block)), ...);
}

// What a kernel is compiled for: code width, kind of scales and zero points, and whether codes stand for a table's levels.
template <int kBits_, ScaleType kScale_, ZeroType kZero_, bool kTable_>
struct Storage {
  static constexpr int kBits = kBits_;
  static constexpr ScaleType kScale = kScale_;
  static constexpr ZeroType kZero = kZero_;
  static constexpr bool kTable = kTable_;
  static constexpr bool kMultiple = kScale == ScaleType::multiple;
  static constexpr bool kSmall = kBits <= 4 && !kTable;      // levels of at most four bits
  static constexpr int kMiddleBit = kTable ? 7 : kBits - 1;  // the level 2^kMiddleBit is zero where there is no zero point
};

// Calls visit<Storage>() for the storage found at run time.
template <int kBits, ScaleType kScale, class Visit>
inline void with_zero(const QuantizedPanels& w, Visit visit) {
  if (kBits < 8 && w.table != nullptr) return visit.template operator()<Storage<kBits, kScale, ZeroType::middle, (kBits < 8)>>();
  if (w.zero_type == ZeroType::middle) return visit.template operator()<Storage<kBits, kScale, ZeroType::middle, false>>();
  if (w.zero_type == ZeroType::uint8) return visit.template operator()<Storage<kBits, kScale, ZeroType::uint8, false>>();
  visit.template operator()<Storage<kBits, kScale, ZeroType::fp32, false>>();
}

template <int kBits, class Visit>
inline void with_scale(const QuantizedPanels& w, Visit visit) {
  if (w.scale_type == ScaleType::fp16) return with_zero<kBits, ScaleType::fp16>(w, visit);
  if (w.scale_type == ScaleType::fp32) return with_zero<kBits, ScaleType::fp32>(w, visit);
  if constexpr (kBits < 8) visit.template operator()<Storage<kBits, ScaleType::multiple, ZeroType::middle, false>>();
}

template <class Visit>
inline void with_storage(const QuantizedPanels& w, Visit visit) {
  switch (w.bits) {
    case 2:
      return with_scale<2>(w, visit);
    case 3:
      return with_scale<3>(w, visit);
    case 4:
      return with_scale<4>(w, visit);
    default:
      return with_scale<8>(w, visit);
  }
}

// Scales and zero points of one panel, group by group. `kOffset` is what the instruction set's dot product takes from
// levels already.
template <class Isa, class Storage, int kOffset = 0>
struct Groups {
  const uint8_t *scales, *zeros;

  Groups(const QuantizedPanels& w, int panel) : scales(w.record(panel)), zeros(scales + w.zeros_at) {}

  typename Isa::F scale(int group) const {
    if constexpr (Storage::kScale == ScaleType::fp16)
      return Isa::load_fp16(reinterpret_cast<const uint16_t*>(scales) + group * kPanelRows);
    if constexpr (Storage::kMultiple) return Isa::mul(row_scale(), Isa::to_float(multiple(group)));
    return Isa::load(reinterpret_cast<const float*>(scales) + group * kPanelRows);
  }
  typename Isa::F row_scale() const { return Isa::load(reinterpret_cast<const float*>(scales)); }

  typename Isa::F zero_point(int group) const {
    const auto offset = Isa::set1(kOffset);
    if constexpr (Storage::kZero == ZeroType::uint8) return Isa::sub(Isa::load_uint8(zeros + group * kPanelRows), offset);
    if constexpr (Storage::kZero == ZeroType::fp32)
      return Isa::sub(Isa::load(reinterpret_cast<const float*>(zeros) + group * kPanelRows), offset);
    return Isa::set1((1 << Storage::kMiddleBit) - kOffset);
  }

  typename Isa::I multiple(int group) const {
    return Isa::load_int8_lanes(reinterpret_cast<const int8_t*>(zeros) + group * kPanelRows);
  }

  // Sum of (level - zero point) * a over codes whose sum of level * a is `sum`; exact where zero points are whole and the
  // sum stays below 2^24.
  typename Isa::I centred(typename Isa::I sum, int32_t negated_sum) const {
    static_assert(Storage::kZero == ZeroType::middle);
    if constexpr (kOffset != 0) return sum;  // the only offset there is, is the middle
    return Isa::add_int(sum, Isa::broadcast(negated_sum * (1 << Storage::kMiddleBit)));
  }
  typename Isa::F exact(typename Isa::I sum, int32_t negated_sum, int group) const {
    if constexpr (Storage::kZero == ZeroType::middle)
      return Isa::to_float(centred(sum, negated_sum));
    else
      return Isa::fma(zero_point(group), Isa::set1(static_cast<float>(negated_sum)), Isa::to_float(sum));
  }
};

// The offset of Isa's dot product for this storage.
template <class Isa, class Storage>
constexpr int dot_offset() {
  return Storage::kSmall ? 0 : Isa::kByteOffset;
}

// A table in the form that `Isa::look_up` wants; nothing where there is none.
template <class Isa, class Storage>
inline typename Isa::B load_table(const QuantizedPanels& w) {
  if constexpr (Storage::kTable) return Isa::load_table(w.table);
  return typename Isa::B{};
}

// Levels of one step.
template <class Isa, class Storage, int kStep>
inline typename Isa::B step_levels(const uint8_t* block, typename Isa::B table) {
  constexpr int kBits = Storage::kBits;
  if constexpr (Storage::kTable && Isa::kLooksUpLowBits && kBits == 4) {
    const auto bytes = Isa::load_bytes(block + kStep / 2 * kStepBytes);
    return Isa::look_up(table, Isa::template shifted<kStep % 2 * kBits>(bytes));
  } else if constexpr (Storage::kTable) {
    return Isa::look_up(table, step_codes<Isa, kBits, kStep>(block));
  } else {
    return step_codes<Isa, kBits, kStep>(block);
  }
}

template <class Isa, class Storage, int... kStep>
inline void spread_block(const uint8_t* block, typename Isa::B table, uint8_t* bytes, std::integer_sequence<int, kStep...>) {
  (Isa::store_bytes(bytes + kStep * kStepBytes, step_levels<Isa, Storage, kStep>(block, table)), ...);
}

// Scales and codes of a record are read by turns, two streams in the same pages, which misleads the hardware that looks
// ahead. One look at each line of scales first makes it a single stream.
inline void touch_lines(const uint8_t* begin, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 64) static_cast<void>(*static_cast<const volatile uint8_t*>(begin + i));
}

// The panel's levels as bytes, [block][step][64]: what eight-bit panels hold already.
template <class Isa, class Storage>
inline const uint8_t* panel_levels(const QuantizedPanels& w, int p, uint8_t* scratch) {
  const uint8_t* codes = w.record(p) + w.codes_at;
  if constexpr (Storage::kBits == 8) return codes;
  const auto table = load_table<Isa, Storage>(w);
  for (int b = 0; b < w.blocks; b++)
    spread_block<Isa, Storage>(codes + b * code_bytes(Storage::kBits), table, scratch + b * code_bytes(8),
                               std::make_integer_sequence<int, kSteps>());
  return scratch;
}

// out[k][16] = scale * (level - zero_point) for one panel; out has blocks * 32 rows.
template <class Isa>
void dequantize_panel(const QuantizedPanels& w, int p, float* out) {
  with_storage(w, [&]<class Storage>() {
    const Groups<Isa, Storage> groups(w, p);
    const auto table = load_table<Isa, Storage>(w);
    uint8_t bytes[code_bytes(8)];
    for (int b = 0; b < w.blocks; b++) {
      const auto scale = groups.scale(b / w.blocks_per_group), zero_point = groups.zero_point(b / w.blocks_per_group);
      const uint8_t* block = w.record(p) + w.codes_at + static_cast<size_t>(b) * code_bytes(Storage::kBits);
      spread_block<Isa, Storage>(block, table, bytes, std::make_integer_sequence<int, kSteps>());
      for (int j = 0; j < kSteps; j++)
        for (int i = 0; i < 4; i++, out += kPanelRows) {
          const auto level = Isa::to_float(Isa::byte(Isa::load_bytes(bytes + j * kStepBytes), i));
          Isa::store(out, Isa::mul(Isa::sub(level, zero_point), scale));
        }
    }
  });
}

}  // namespace
