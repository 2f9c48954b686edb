// Sixteen lanes as four 128-bit registers: Armv8 NEON, with the dot product or the mixed-sign dot product of int8 where
// the compiler was told so. A primitive says what it does to register i; `map` does it to all four.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace {

struct Neon {
#if defined(__ARM_FEATURE_MATMUL_INT8)
  static constexpr const char* kName = "i8mm";
#elif defined(__ARM_FEATURE_DOTPROD)
  static constexpr const char* kName = "dotprod";
#else
  static constexpr const char* kName = "neon";
#endif
  static constexpr int kTile = 4;
  static constexpr bool kLongSums = true;

  struct F {
    float32x4_t v[4];
  };
  struct I {
    int32x4_t v[4];
  };
  struct B {
    uint8x16_t v[4];
  };
  template <class Result, class Op>
  static Result map(Op op) {
    return {{op(0), op(1), op(2), op(3)}};
  }

  static F set1(float x) {
    return map<F>([&](int) { return vdupq_n_f32(x); });
  }
  static F load(const float* p) {
    return map<F>([&](int i) { return vld1q_f32(p + 4 * i); });
  }
  static F load_fp16(const uint16_t* p) {
    return map<F>([&](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))); });
  }
  static F load_bf16(const uint16_t* p) {
    return map<F>([&](int i) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)); });
  }
  static F load_uint8(const uint8_t* p) {
    const uint8x16_t x = vld1q_u8(p);
    const uint16x8_t halves[] = {vmovl_u8(vget_low_u8(x)), vmovl_high_u8(x)};
    return map<F>([&](int i) {
      return vcvtq_f32_u32(i % 2 == 0 ? vmovl_u16(vget_low_u16(halves[i / 2])) : vmovl_high_u16(halves[i / 2]));
    });
  }
  static void store(float* p, F a) {
    for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, a.v[i]);
  }
  static void store_fp16(uint16_t* p, F a) {
    for (int i = 0; i < 4; i++) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(a.v[i])));
  }
  static F add(F a, F b) {
    return map<F>([&](int i) { return vaddq_f32(a.v[i], b.v[i]); });
  }
  static F sub(F a, F b) {
    return map<F>([&](int i) { return vsubq_f32(a.v[i], b.v[i]); });
  }
  static F mul(F a, F b) {
    return map<F>([&](int i) { return vmulq_f32(a.v[i], b.v[i]); });
  }
  static F div(F a, F b) {
    return map<F>([&](int i) { return vdivq_f32(a.v[i], b.v[i]); });
  }
  static F fma(F a, F b, F c) {
    return map<F>([&](int i) { return vfmaq_f32(c.v[i], a.v[i], b.v[i]); });
  }
  // Where one of the two is no number the result is b, as in the twin and on x86; NEON's own minimum would spread it.
  static F min(F a, F b) {
    return map<F>([&](int i) { return vbslq_f32(vcltq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]); });
  }
  static float32x4_t larger(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
  static F max(F a, F b) {
    return map<F>([&](int i) { return larger(a.v[i], b.v[i]); });
  }
  static F abs(F a) {
    return map<F>([&](int i) { return vabsq_f32(a.v[i]); });
  }
  static F round(F a) {
    return map<F>([&](int i) { return vrndnq_f32(a.v[i]); });
  }
  static F pow2(F a) {
    return map<F>(
        [&](int i) { return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(a.v[i]), vdupq_n_s32(127)), 23)); });
  }
  static int8x16_t narrow(F whole) {  // the low byte of sixteen whole numbers
    const auto half = [&](int i) { return vmovn_high_s32(vmovn_s32(vcvtq_s32_f32(whole.v[i])), vcvtq_s32_f32(whole.v[i + 1])); };
    return vmovn_high_s16(vmovn_s16(half(0)), half(2));
  }
  static void store_int8(int8_t* p, F whole) { vst1q_s8(p, narrow(whole)); }
  static void store_uint8(uint8_t* p, F whole) { vst1q_u8(p, vreinterpretq_u8_s8(narrow(whole))); }
  template <int kDistance>
  static F swap_lanes(F a) {  // lane i takes lane i ^ kDistance
    return map<F>([&](int i) {
      if constexpr (kDistance == 1) return vrev64q_f32(a.v[i]);
      if constexpr (kDistance == 2) return vextq_f32(a.v[i], a.v[i], 2);
      return a.v[i ^ (kDistance / 4)];
    });
  }
  static float sum(F a) {
    const float32x4_t four = vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
  }
  static float highest(F a) {
    const float32x4_t four = larger(larger(a.v[0], a.v[2]), larger(a.v[1], a.v[3]));
    const float32x4_t two = larger(four, vextq_f32(four, four, 2));
    return vgetq_lane_f32(larger(two, vextq_f32(two, two, 1)), 0);
  }

  static I broadcast(int32_t x) {
    return map<I>([&](int) { return vdupq_n_s32(x); });
  }
  static I add_int(I a, I b) {
    return map<I>([&](int i) { return vaddq_s32(a.v[i], b.v[i]); });
  }
  static I mul_int(I a, I b) {
    return map<I>([&](int i) { return vmulq_s32(a.v[i], b.v[i]); });
  }
  static I load_int8_lanes(const int8_t* p) {
    const int8x16_t x = vld1q_s8(p);
    const int16x8_t halves[] = {vmovl_s8(vget_low_s8(x)), vmovl_high_s8(x)};
    return map<I>([&](int i) { return i % 2 == 0 ? vmovl_s16(vget_low_s16(halves[i / 2])) : vmovl_high_s16(halves[i / 2]); });
  }
  static I shift_right(I a, int bits) {
    return map<I>([&](int i) { return vshlq_s32(a.v[i], vdupq_n_s32(-bits)); });
  }
  static F to_float(I a) {
    return map<F>([&](int i) { return vcvtq_f32_s32(a.v[i]); });
  }
  static I byte(B w, int j) {
    return map<I>([&](int i) {
      const uint32x4_t shifted = vshlq_u32(vreinterpretq_u32_u8(w.v[i]), vdupq_n_s32(-8 * j));
      return vreinterpretq_s32_u32(vandq_u32(shifted, vdupq_n_u32(0xFF)));
    });
  }

  static B load_bytes(const uint8_t* p) {
    return map<B>([&](int i) { return vld1q_u8(p + 16 * i); });
  }
  static void store_bytes(uint8_t* p, B a) {
    for (int i = 0; i < 4; i++) vst1q_u8(p + 16 * i, a.v[i]);
  }
  template <int kShift>
  static uint8x16_t shifted(uint8x16_t w) {
    if constexpr (kShift > 0) return vshrq_n_u8(w, kShift);
    if constexpr (kShift < 0) return vshlq_n_u8(w, -kShift);
    return w;
  }
  template <int kShift>
  static B field(B w, uint8_t mask) {
    constexpr int kLeft = 0xFF >> (kShift > 0 ? kShift : 0);  // bits that a shift of bytes leaves: no mask is needed
    return map<B>([&](int i) {
      const uint8x16_t low = shifted<kShift>(w.v[i]);
      return mask == kLeft ? low : vandq_u8(low, vdupq_n_u8(mask));
    });
  }
  static B either(B a, B b) {
    return map<B>([&](int i) { return vorrq_u8(a.v[i], b.v[i]); });
  }

  // (byte - kMiddle) * multiple of its lane + 128, for results of -128 to 127 above 128
  template <int kMiddle>
  static B multiply_bytes(B codes, I multiple) {
    return map<B>([&](int i) {
      const uint32x4_t factor =
          vmulq_u32(vandq_u32(vreinterpretq_u32_s32(multiple.v[i]), vdupq_n_u32(0xFF)), vdupq_n_u32(0x01010101));
      const uint8x16_t product = vmulq_u8(vsubq_u8(codes.v[i], vdupq_n_u8(kMiddle)), vreinterpretq_u8_u32(factor));
      return vaddq_u8(product, vdupq_n_u8(128));
    });
  }
  static constexpr bool kLooksUpLowBits = false;
  static B load_table(const uint8_t* p) {  // 16 entries
    return map<B>([&](int) { return vld1q_u8(p); });
  }
  static B look_up(B table, B codes) {
    return map<B>([&](int i) { return vqtbl1q_u8(table.v[i], codes.v[i]); });
  }
  static void turn(B (&v)[4]) {
    for (int i = 0; i < 4; i++) {
      const auto words = [&](int k) { return vreinterpretq_u32_u8(v[k].v[i]); };
      const auto pairs = [](uint32x4_t a) { return vreinterpretq_u64_u32(a); };
      const uint64x2_t ab = pairs(vzip1q_u32(words(0), words(1))), cd = pairs(vzip1q_u32(words(2), words(3)));
      const uint64x2_t ba = pairs(vzip2q_u32(words(0), words(1))), dc = pairs(vzip2q_u32(words(2), words(3)));
      v[0].v[i] = vreinterpretq_u8_u64(vzip1q_u64(ab, cd)), v[1].v[i] = vreinterpretq_u8_u64(vzip2q_u64(ab, cd));
      v[2].v[i] = vreinterpretq_u8_u64(vzip1q_u64(ba, dc)), v[3].v[i] = vreinterpretq_u8_u64(vzip2q_u64(ba, dc));
    }
  }

  // NEON shifts bytes, so a step's codes are taken out at no more cost than they could be masked where they are.
  static constexpr bool kWideProducts = false;
#if defined(__ARM_FEATURE_MATMUL_INT8)
  static constexpr int kByteOffset = 0;
  template <bool kSmall>
  static int32x4_t dot_register(int32x4_t acc, uint8x16_t w, int8x16_t a) {
    return vusdotq_s32(acc, w, a);
  }
#else
  // Both sides of these products are signed: bytes are centred, small codes fit as they are.
  static constexpr int kByteOffset = 128;
  template <bool kSmall>
  static int32x4_t dot_register(int32x4_t acc, uint8x16_t w, int8x16_t a) {
    const int8x16_t level = vreinterpretq_s8_u8(kSmall ? w : veorq_u8(w, vdupq_n_u8(128)));
#if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(acc, level, a);
#else
    // Sums of two products are at most 2 * 128 * 127 < 2^15.
    const int16x8_t pairs = vpaddq_s16(vmull_s8(vget_low_s8(level), vget_low_s8(a)), vmull_high_s8(level, a));
    return vpadalq_s16(acc, pairs);
#endif
  }
#endif
  template <bool kSmall>
  static I dot(I acc, B w, int32_t four) {
    const int8x16_t a = vreinterpretq_s8_s32(vdupq_n_s32(four));
    return map<I>([&](int i) { return dot_register<kSmall>(acc.v[i], w.v[i], a); });
  }
  static I dot_sixteen(I acc, B w, const int32_t* x) {
    const int8x16_t a = vreinterpretq_s8_s32(vld1q_s32(x));
    return map<I>([&](int i) { return dot_register<false>(acc.v[i], w.v[i], a); });
  }
  static I fold(const I (&sums)[4]) {
    return map<I>(
        [&](int i) { return vpaddq_s32(vpaddq_s32(sums[0].v[i], sums[1].v[i]), vpaddq_s32(sums[2].v[i], sums[3].v[i])); });
  }
  template <bool kSmall>
  static I finish(I acc) {
    return acc;
  }
};

}  // namespace
