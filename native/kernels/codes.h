// How quantized panels lie in memory, and one group's scale and zero point.
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
using bitwright::QuantizedPanels;
using bitwright::QuantizedRows;
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

// What a kernel is compiled for: code width, type of scales and kind of zero points.
template <int kBits_, ScaleType kScale_, ZeroType kZero_>
struct Storage {
  static constexpr int kBits = kBits_;
  static constexpr ScaleType kScale = kScale_;
  static constexpr ZeroType kZero = kZero_;
};

// Calls visit<Storage>() for the storage found at run time.
template <int kBits, ScaleType kScale, class Visit>
inline void with_zero(ZeroType type, Visit visit) {
  if (type == ZeroType::middle) return visit.template operator()<Storage<kBits, kScale, ZeroType::middle>>();
  if (type == ZeroType::uint8) return visit.template operator()<Storage<kBits, kScale, ZeroType::uint8>>();
  visit.template operator()<Storage<kBits, kScale, ZeroType::fp32>>();
}

template <int kBits, class Visit>
inline void with_scale(const QuantizedPanels& w, Visit visit) {
  if (w.scale_type == ScaleType::fp16) return with_zero<kBits, ScaleType::fp16>(w.zero_type, visit);
  with_zero<kBits, ScaleType::fp32>(w.zero_type, visit);
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

// One group of a panel. `kOffset` is what the instruction set's dot product centres codes by already.
template <class Isa, class Storage, int kOffset = 0>
struct Group {
  typename Isa::F scale, zero_point;

  Group(const QuantizedPanels& w, size_t group) : scale(load_scale(w, group)), zero_point(load_zero_point(w, group)) {}

  static typename Isa::F load_scale(const QuantizedPanels& w, size_t group) {
    if constexpr (Storage::kScale == ScaleType::fp16)
      return Isa::load_fp16(static_cast<const uint16_t*>(w.scales) + group * kPanelRows);
    else
      return Isa::load(static_cast<const float*>(w.scales) + group * kPanelRows);
  }

  static typename Isa::F load_zero_point(const QuantizedPanels& w, size_t group) {
    if constexpr (Storage::kZero == ZeroType::middle) return Isa::set1((1 << (Storage::kBits - 1)) - kOffset);
    const auto offset = Isa::set1(kOffset);
    if constexpr (Storage::kZero == ZeroType::uint8)
      return Isa::sub(Isa::load_uint8(static_cast<const uint8_t*>(w.zero_points) + group * kPanelRows), offset);
    else
      return Isa::sub(Isa::load(static_cast<const float*>(w.zero_points) + group * kPanelRows), offset);
  }

  // Asks for a later group's scales to be brought to the cache.
  static void fetch(const QuantizedPanels& w, size_t group) {
    const size_t unit = Storage::kScale == ScaleType::fp16 ? 2 : 4;
    __builtin_prefetch(static_cast<const uint8_t*>(w.scales) + group * kPanelRows * unit);
  }

  // acc + scale * x_scale * (sum + zero_point * negated_sum). With whole zero points the bracket is exact: all its
  // numbers are below 2^24.
  typename Isa::F add(typename Isa::I sum, float negated_sum, float x_scale, typename Isa::F acc) const {
    const auto exact = Isa::fma(zero_point, Isa::set1(negated_sum), Isa::to_float(sum));
    return Isa::fma(exact, Isa::mul(scale, Isa::set1(x_scale)), acc);
  }
};

// out[k][16] = scale * (code - zero_point) for one panel; out has blocks * 32 rows.
template <class Isa>
void dequantize_panel(const QuantizedPanels& w, int p, float* out) {
  with_storage(w, [&]<class Storage>() {
    uint8_t bytes[code_bytes(8)];
    for (int b = 0; b < w.blocks; b++) {
      const Group<Isa, Storage> group(w, static_cast<size_t>(p) * w.groups() + b / w.blocks_per_group);
      const uint8_t* block = w.codes + (static_cast<size_t>(p) * w.blocks + b) * code_bytes(Storage::kBits);
      spread_block<Isa, Storage::kBits>(block, bytes, std::make_integer_sequence<int, kSteps>());
      for (int j = 0; j < kSteps; j++)
        for (int i = 0; i < 4; i++, out += kPanelRows) {
          const auto code = Isa::to_float(Isa::byte(Isa::load_bytes(bytes + j * kStepBytes), i));
          Isa::store(out, Isa::mul(Isa::sub(code, group.zero_point), group.scale));
        }
    }
  });
}

}  // namespace
