// How a panel's record lies in memory, and one group's scale and zero point.
//
// A record holds the panel's scales, then its zero points (or multiples, or tables), then its codes, each part on a cache
// line of its own.
//
// Order of codes inside a block of 16 rows x 32 columns. Step j (0 .. 7) covers columns 4j .. 4j + 3; its 64 bytes are
// [row][column % 4]. Eight-bit blocks hold the eight steps in turn. Two and four bits share bytes: with f = 8 / bits
// fields a byte, vector i holds steps i*f .. i*f + f - 1, the first in the lowest bits. Three bits take three vectors:
//
//            bits 0-2   bits 3-5   bits 6-7
//   vector 0 step 0     step 1     low bits of step 6
//   vector 1 step 2     step 3     low bits of step 7
//   vector 2 step 4     step 5     top bit of step 6 (bit 6) and of step 7 (bit 7)
//
// A look-up of bytes reaches 16 bytes far. Where rows have tables of their own, 16 bytes are therefore one row's: the places
// of row 4i + j and step 4h + k hold row 4i + k and step 4h + j. Four vectors of levels are turned back in registers, or
// their sums are folded. Vector k of the tables has those of rows k, 4 + k, 8 + k and 12 + k.
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
using bitwright::TableType;
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

// What decoding asks of a storage: code width, and whose table the codes look up.
template <int kBits_, TableType kTable_>
struct Codes {
  static constexpr int kBits = kBits_;
  static constexpr TableType kTable = kTable_;
  static constexpr bool kLooksUp = kTable != TableType::none;
  static constexpr bool kSmall = kBits <= 4 && !kLooksUp;      // levels of at most four bits
  static constexpr int kMiddleBit = kLooksUp ? 7 : kBits - 1;  // the level 2^kMiddleBit is zero where there is no zero point
};

// What a kernel is compiled for: codes, kind of scales and zero points.
template <int kBits_, ScaleType kScale_, ZeroType kZero_, TableType kTable_>
struct Storage : Codes<kBits_, kTable_> {
  static constexpr ScaleType kScale = kScale_;
  static constexpr ZeroType kZero = kZero_;
  static constexpr bool kMultiple = kScale == ScaleType::multiple;
};

// Calls visit<Storage>() for the storage found at run time.
template <int kBits, ScaleType kScale, class Visit>
inline void with_zero(const QuantizedPanels& w, Visit visit) {
  const auto with = [&]<ZeroType kZero, TableType kTable>() {
    visit.template operator()<Storage<kBits, kScale, kZero, kTable>>();
  };
  if constexpr (kBits < 8) {
    if (w.table_type == TableType::tensor) return with.template operator()<ZeroType::middle, TableType::tensor>();
    if (w.table_type == TableType::row) return with.template operator()<ZeroType::middle, TableType::row>();
  }
  if (w.zero_type == ZeroType::middle) return with.template operator()<ZeroType::middle, TableType::none>();
  if (w.zero_type == ZeroType::uint8) return with.template operator()<ZeroType::uint8, TableType::none>();
  with.template operator()<ZeroType::fp32, TableType::none>();
}

template <int kBits, class Visit>
inline void with_scale(const QuantizedPanels& w, Visit visit) {
  if (w.scale_type == ScaleType::fp16) return with_zero<kBits, ScaleType::fp16>(w, visit);
  if (w.scale_type == ScaleType::fp32) return with_zero<kBits, ScaleType::fp32>(w, visit);
  if constexpr (kBits < 8) visit.template operator()<Storage<kBits, ScaleType::multiple, ZeroType::middle, TableType::none>>();
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

// What a panel's codes look up: nothing, one table for all 16 bytes, or four vectors of tables.
template <class Isa, TableType kTable>
struct Tables {
  typename Isa::B of[kTable == TableType::row ? 4 : 1] = {};
  Tables([[maybe_unused]] const QuantizedPanels& w, [[maybe_unused]] int panel) {
    if constexpr (kTable == TableType::tensor) of[0] = Isa::load_table(w.table);
    if constexpr (kTable == TableType::row)
      for (int k = 0; k < 4; k++) of[k] = Isa::load_bytes(w.record(panel) + w.zeros_at + k * kStepBytes);
  }
};

// Levels of one step, or what stands in its place.
template <class Isa, class Codes, int kStep>
inline typename Isa::B step_levels(const uint8_t* block, typename Isa::B table) {
  constexpr int kBits = Codes::kBits;
  if constexpr (Codes::kTable == TableType::tensor && Isa::kLooksUpLowBits && kBits == 4) {
    const auto bytes = Isa::load_bytes(block + kStep / 2 * kStepBytes);
    return Isa::look_up_low_bits(table, Isa::template shifted<kStep % 2 * kBits>(bytes));
  } else if constexpr (Codes::kLooksUp) {
    return Isa::look_up(table, step_codes<Isa, kBits, kStep>(block));
  } else {
    return step_codes<Isa, kBits, kStep>(block);
  }
}

// Calls visit<step>(levels) for the steps of a block in turn.
template <class Isa, class Codes, class Visit>
[[gnu::always_inline]] inline void for_steps(const uint8_t* block, const Tables<Isa, Codes::kTable>& tables, const Visit& visit) {
  const auto four = [&]<int... kStep>(std::integer_sequence<int, kStep...>, auto first) __attribute__((always_inline)) {
    constexpr int kFirst = first;
    if constexpr (Codes::kTable == TableType::row) {
      typename Isa::B levels[] = {step_levels<Isa, Codes, kFirst + kStep>(block, tables.of[kStep])...};
      Isa::turn(levels);
      (visit.template operator()<kFirst + kStep>(levels[kStep]), ...);
    } else {
      (visit.template operator()<kFirst + kStep>(step_levels<Isa, Codes, kFirst + kStep>(block, tables.of[0])), ...);
    }
  };
  constexpr auto kFour = std::make_integer_sequence<int, kSteps / 2>();
  four(kFour, std::integral_constant<int, 0>()), four(kFour, std::integral_constant<int, kSteps / 2>());
}

template <class Isa, class Codes>
inline void spread_block(const uint8_t* block, const Tables<Isa, Codes::kTable>& tables, uint8_t* bytes) {
  for_steps<Isa, Codes>(block, tables,
                        [&]<int kStep>(typename Isa::B levels) { Isa::store_bytes(bytes + kStep * kStepBytes, levels); });
}

// Scales and codes of a record are read by turns, two streams in the same pages, which misleads the hardware that looks
// ahead. One look at each line of scales first makes it a single stream.
inline void touch_lines(const uint8_t* begin, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 64) static_cast<void>(*static_cast<const volatile uint8_t*>(begin + i));
}

// What comes later is asked for: left to the hardware, which does not look far enough ahead, a core waits for every other
// line once memory is busy with other work.
template <int kBits>
inline void fetch_block(const uint8_t* block) {
  for (size_t line = 0; line < code_bytes(kBits); line += 64) __builtin_prefetch(block + bitwright::kFetchAhead + line);
}

// The panel's levels as bytes, [block][step][64]: what eight-bit panels hold already.
template <class Isa, class Storage>
inline const uint8_t* panel_levels(const QuantizedPanels& w, int p, uint8_t* scratch) {
  const uint8_t* codes = w.record(p) + w.codes_at;
  if constexpr (Storage::kBits == 8) return codes;
  const Tables<Isa, Storage::kTable> tables(w, p);
  for (int b = 0; b < w.blocks; b++)
    spread_block<Isa, Storage>(codes + b * code_bytes(Storage::kBits), tables, scratch + b * code_bytes(8));
  return scratch;
}

// out[k][16] = scale * (level - zero_point) for one panel; out has blocks * 32 rows.
template <class Isa>
void dequantize_panel(const QuantizedPanels& w, int p, float* out) {
  with_storage(w, [&]<class Storage>() {
    const Groups<Isa, Storage> groups(w, p);
    const Tables<Isa, Storage::kTable> tables(w, p);
    uint8_t bytes[code_bytes(8)];
    for (int b = 0; b < w.blocks; b++) {
      const auto scale = groups.scale(b / w.blocks_per_group), zero_point = groups.zero_point(b / w.blocks_per_group);
      const uint8_t* block = w.record(p) + w.codes_at + static_cast<size_t>(b) * code_bytes(Storage::kBits);
      spread_block<Isa, Storage>(block, tables, bytes);
      for (int j = 0; j < kSteps; j++)
        for (int i = 0; i < 4; i++, out += kPanelRows) {
          const auto level = Isa::to_float(Isa::byte(Isa::load_bytes(bytes + j * kStepBytes), i));
          Isa::store(out, Isa::mul(Isa::sub(level, zero_point), scale));
        }
    }
  });
}

}  // namespace
