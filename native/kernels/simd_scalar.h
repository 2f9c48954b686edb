// Sixteen lanes in plain C++: the slow twin of every wide instruction set.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "half.h"

namespace {

struct Scalar {
  static constexpr const char* kName = "scalar";
  static constexpr int kTile = 4;
  static constexpr bool kLongSums = true;  // of small levels too: `finish` may wait
  static constexpr bool kWideProducts = true;

  struct F {
    float v[16];
  };
  struct I {
    int32_t v[16];
  };
  struct B {
    uint8_t v[64];
  };
  template <class Op>
  static F map(Op op) {
    F r;
    for (int i = 0; i < 16; i++) r.v[i] = op(i);
    return r;
  }

  static F set1(float x) {
    return map([&](int) { return x; });
  }
  static F load(const float* p) {
    F r;
    std::memcpy(r.v, p, sizeof r.v);
    return r;
  }
  static F load_fp16(const uint16_t* p) {
    return map([&](int i) { return half_to_float(p[i]); });
  }
  static F load_bf16(const uint16_t* p) {
    return map([&](int i) { return std::bit_cast<float>(static_cast<uint32_t>(p[i]) << 16); });
  }
  static F load_uint8(const uint8_t* p) {
    return map([&](int i) { return static_cast<float>(p[i]); });
  }
  static void store(float* p, F a) { std::memcpy(p, a.v, sizeof a.v); }
  static void store_fp16(uint16_t* p, F a) {
    for (int i = 0; i < 16; i++) p[i] = float_to_half(a.v[i]);
  }
  static uint16_t bf16(float x) {  // nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
  }
  static void store_bf16(uint16_t* p, F a) {
    for (int i = 0; i < 16; i++) p[i] = bf16(a.v[i]);
  }
  static void store_bf16(uint16_t* p, F a, F b) { store_bf16(p, a), store_bf16(p + 16, b); }
  static void store_bf16_pairs(uint16_t* p, F even, F odd) {
    for (int i = 0; i < 16; i++) p[2 * i] = bf16(even.v[i]), p[2 * i + 1] = bf16(odd.v[i]);
  }
  static F add(F a, F b) {
    return map([&](int i) { return a.v[i] + b.v[i]; });
  }
  static F sub(F a, F b) {
    return map([&](int i) { return a.v[i] - b.v[i]; });
  }
  static F mul(F a, F b) {
    return map([&](int i) { return a.v[i] * b.v[i]; });
  }
  static F div(F a, F b) {
    return map([&](int i) { return a.v[i] / b.v[i]; });
  }
  static F fma(F a, F b, F c) {
    return map([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
  }
  static F min(F a, F b) {
    return map([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
  }
  static F max(F a, F b) {
    return map([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
  }
  static F abs(F a) {
    return map([&](int i) { return std::fabs(a.v[i]); });
  }
  static F round(F a) {
    return map([&](int i) { return std::nearbyint(a.v[i]); });
  }
  static F pow2(F a) {  // 2^a for whole a in -126 .. 127
    return map([&](int i) { return std::bit_cast<float>((static_cast<int32_t>(a.v[i]) + 127) << 23); });
  }
  static void store_int8(int8_t* p, F whole) {
    for (int i = 0; i < 16; i++) p[i] = static_cast<int8_t>(whole.v[i]);
  }
  static void store_uint8(uint8_t* p, F whole) {
    for (int i = 0; i < 16; i++) p[i] = static_cast<uint8_t>(whole.v[i]);
  }
  template <int kDistance>
  static F swap_lanes(F a) {  // lane i takes lane i ^ kDistance
    return map([&](int i) { return a.v[i ^ kDistance]; });
  }
  static float sum(F a) {
    for (int width = 8; width; width /= 2)
      for (int i = 0; i < width; i++) a.v[i] += a.v[i + width];
    return a.v[0];
  }
  static float highest(F a) {
    for (int width = 8; width; width /= 2)
      for (int i = 0; i < width; i++) a.v[i] = a.v[i] > a.v[i + width] ? a.v[i] : a.v[i + width];
    return a.v[0];
  }

  static I broadcast(int32_t x) {
    I r;
    for (int i = 0; i < 16; i++) r.v[i] = x;
    return r;
  }
  static I add_int(I a, I b) {
    for (int i = 0; i < 16; i++) a.v[i] += b.v[i];
    return a;
  }
  static I load_int(const int32_t* p) {
    I r;
    std::memcpy(r.v, p, sizeof r.v);
    return r;
  }
  static void store_int(int32_t* p, I a) { std::memcpy(p, a.v, sizeof a.v); }
  static I mul_int(I a, I b) {
    for (int i = 0; i < 16; i++) a.v[i] *= b.v[i];
    return a;
  }
  static I load_int8_lanes(const int8_t* p) {
    I r;
    for (int i = 0; i < 16; i++) r.v[i] = p[i];
    return r;
  }
  static I shift_right(I a, int bits) {
    for (int i = 0; i < 16; i++) a.v[i] >>= bits;
    return a;
  }
  static F to_float(I a) {
    return map([&](int i) { return static_cast<float>(a.v[i]); });
  }
  static I byte(B w, int j) {  // byte j of every lane
    I r;
    for (int i = 0; i < 16; i++) r.v[i] = w.v[4 * i + j];
    return r;
  }

  static B load_bytes(const uint8_t* p) {
    B r;
    std::memcpy(r.v, p, sizeof r.v);
    return r;
  }
  static void store_bytes(uint8_t* p, B a) { std::memcpy(p, a.v, sizeof a.v); }
  template <int kShift>
  static B field(B w, uint8_t mask) {  // (w >> shift) & mask; a negative shift goes left
    B r;
    for (int i = 0; i < 64; i++) r.v[i] = static_cast<uint8_t>((kShift >= 0 ? w.v[i] >> kShift : w.v[i] << -kShift) & mask);
    return r;
  }
  static B either(B a, B b) {
    B r;
    for (int i = 0; i < 64; i++) r.v[i] = a.v[i] | b.v[i];
    return r;
  }
  template <uint8_t kByte>
  static B subtract(B a) {
    for (uint8_t& byte : a.v) byte = static_cast<uint8_t>(byte - kByte);
    return a;
  }
  // (byte - kMiddle) * multiple of its lane + 128, for results of -128 to 127 above 128
  template <int kMiddle>
  static B multiply_bytes(B codes, I multiple) {
    for (int i = 0; i < 64; i++) codes.v[i] = static_cast<uint8_t>((codes.v[i] - kMiddle) * multiple.v[i / 4] + 128);
    return codes;
  }
  static constexpr bool kLooksUpLowBits = false;
  static B load_table(const uint8_t* p) {  // 16 entries, for each 16 codes
    B r;
    for (int i = 0; i < 64; i++) r.v[i] = p[i % 16];
    return r;
  }
  static B look_up(B tables, B codes) {  // 16 codes in the 16 entries beside them
    for (int i = 0; i < 64; i++) codes.v[i] = tables.v[i / 16 * 16 + codes.v[i]];
    return codes;
  }
  static void turn(B (&v)[4]) {  // in each 16 bytes, words j of vector k and k of vector j change places
    for (int i = 0; i < 64; i += 16)
      for (int k = 0; k < 4; k++)
        for (int j = 0; j < k; j++) std::swap_ranges(v[k].v + i + 4 * j, v[k].v + i + 4 * j + 4, v[j].v + i + 4 * k);
  }

  // Sum over a block of (code - offset) * a; `kByteOffset` is the offset for codes wider than 4 bits, 0 for small ones.
  static constexpr int kByteOffset = 0;
  template <bool kSmall>
  static I dot(I acc, B w, int32_t four) {
    int8_t a[4];
    std::memcpy(a, &four, 4);
    for (int i = 0; i < 16; i++)
      for (int j = 0; j < 4; j++) acc.v[i] += w.v[4 * i + j] * a[j];
    return acc;
  }
  // 16 columns of each of four rows instead of four of each of 16; levels of eight bits
  static I dot_sixteen(I acc, B w, const int32_t* x) {
    int8_t a[16];
    std::memcpy(a, x, 16);
    for (int i = 0; i < 64; i++) acc.v[i / 4] += w.v[i] * a[i % 16];
    return acc;
  }
  static I fold(const I (&sums)[4]) {  // lane 4i + k: the sum of lanes 4i .. 4i + 3 of vector k
    I r{};
    for (int i = 0; i < 64; i++) r.v[i / 16 * 4 + i % 4] += sums[i % 4].v[i / 4];
    return r;
  }
  template <bool kSmall>
  static I finish(I acc) {
    return acc;
  }
};

}  // namespace
