// Sixteen lanes as two 256-bit halves: AVX2 + FMA + F16C, and AVX-VNNI where the compiler was told so.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace {

struct Avx2 {
#ifdef __AVXVNNI__
  static constexpr const char* kName = "avxvnni";
#else
  static constexpr const char* kName = "avx2";
#endif
  static constexpr int kTile = 4;

  struct F {
    __m256 lo, hi;
  };
  struct I {
    __m256i lo, hi;
  };
  struct B {
    __m256i lo, hi;
  };
  static F set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static __m128i load128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
  static __m256i load256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  static F load_fp16(const uint16_t* p) { return {_mm256_cvtph_ps(load128(p)), _mm256_cvtph_ps(load128(p + 8))}; }
  static __m256 widen_bf16(__m128i h) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)); }
  static F load_bf16(const uint16_t* p) { return {widen_bf16(load128(p)), widen_bf16(load128(p + 8))}; }
  static F load_uint8(const uint8_t* p) {
    const __m128i x = load128(p);
    return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(x)), _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(x, 8)))};
  }
  static void store(float* p, F a) {
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
  }
  static void store_fp16(uint16_t* p, F a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a.lo, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(a.hi, _MM_FROUND_TO_NEAREST_INT));
  }
  static F add(F a, F b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
  static F sub(F a, F b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
  static F mul(F a, F b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
  static F div(F a, F b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
  static F fma(F a, F b, F c) { return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)}; }
  static F min(F a, F b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
  static F max(F a, F b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
  static F abs(F a) {
    const __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));
    return {_mm256_and_ps(a.lo, mask), _mm256_and_ps(a.hi, mask)};
  }
  static F round(F a) {
    constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(a.lo, mode), _mm256_round_ps(a.hi, mode)};
  }
  static __m256 pow2_half(__m256 a) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(a), _mm256_set1_epi32(127)), 23));
  }
  static F pow2(F a) { return {pow2_half(a.lo), pow2_half(a.hi)}; }
  static __m128i narrow16(F whole) {  // 16 whole numbers to the low bytes of 16-bit lanes, then packed by the caller
    const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(whole.lo), _mm256_cvtps_epi32(whole.hi));
    const __m256i ordered = _mm256_permute4x64_epi64(words, 0xD8);
    const __m256i low = _mm256_and_si256(ordered, _mm256_set1_epi16(0xFF));
    return _mm_packus_epi16(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
  }
  static void store_int8(int8_t* p, F whole) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow16(whole)); }
  static void store_uint8(uint8_t* p, F whole) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow16(whole)); }
  template <int kDistance>
  static __m256 swap_half(__m256 a) {
    if constexpr (kDistance == 1) return _mm256_permute_ps(a, 0xB1);
    if constexpr (kDistance == 2) return _mm256_permute_ps(a, 0x4E);
    return _mm256_permute2f128_ps(a, a, 1);
  }
  template <int kDistance>
  static F swap_lanes(F a) {  // lane i takes lane i ^ kDistance
    if constexpr (kDistance == 8) return {a.hi, a.lo};
    return {swap_half<kDistance>(a.lo), swap_half<kDistance>(a.hi)};
  }
  static float sum(F a) {
    const __m256 eight = _mm256_add_ps(a.lo, a.hi);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
  }
  static float highest(F a) {
    const __m256 eight = _mm256_max_ps(a.lo, a.hi);
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
  }

  static I broadcast(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
  static I add_int(I a, I b) { return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)}; }
  static I shift_right(I a, int bits) {
    const __m128i count = _mm_cvtsi32_si128(bits);
    return {_mm256_sra_epi32(a.lo, count), _mm256_sra_epi32(a.hi, count)};
  }
  static I mul_int(I a, I b) { return {_mm256_mullo_epi32(a.lo, b.lo), _mm256_mullo_epi32(a.hi, b.hi)}; }
  static I load_int8_lanes(const int8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8))};
  }
  static F to_float(I a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
  static __m256i byte_half(__m256i w, int j) {
    return _mm256_and_si256(_mm256_srl_epi32(w, _mm_cvtsi32_si128(8 * j)), _mm256_set1_epi32(0xFF));
  }
  static I byte(B w, int j) { return {byte_half(w.lo, j), byte_half(w.hi, j)}; }

  static B load_bytes(const uint8_t* p) { return {load256(p), load256(p + 32)}; }
  static void store_bytes(uint8_t* p, B a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.lo);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 32), a.hi);
  }
  template <int kShift>
  static __m256i field_half(__m256i w, __m256i mask) {
    if constexpr (kShift > 0) return _mm256_and_si256(_mm256_srli_epi16(w, kShift), mask);
    if constexpr (kShift < 0) return _mm256_and_si256(_mm256_slli_epi16(w, -kShift), mask);
    return _mm256_and_si256(w, mask);
  }
  template <int kShift>
  static B field(B w, uint8_t mask) {
    const __m256i m = _mm256_set1_epi8(static_cast<char>(mask));
    return {field_half<kShift>(w.lo, m), field_half<kShift>(w.hi, m)};
  }
  static B either(B a, B b) { return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)}; }
  template <int kMiddle>
  static __m256i multiply_half(__m256i codes, __m256i multiple) {
    const __m256i factor =
        _mm256_or_si256(_mm256_and_si256(multiple, _mm256_set1_epi32(0xFFFF)), _mm256_slli_epi32(multiple, 16));
    const __m256i centred = _mm256_sub_epi8(codes, _mm256_set1_epi8(kMiddle));
    const __m256i even = _mm256_mullo_epi16(centred, factor);
    const __m256i odd = _mm256_slli_epi16(_mm256_mullo_epi16(_mm256_srli_epi16(centred, 8), factor), 8);
    const __m256i both = _mm256_blendv_epi8(even, odd, _mm256_set1_epi16(static_cast<short>(0xFF00)));
    return _mm256_add_epi8(both, _mm256_set1_epi8(static_cast<char>(128)));
  }
  template <int kMiddle>
  static B multiply_bytes(B codes, I multiple) {
    return {multiply_half<kMiddle>(codes.lo, multiple.lo), multiply_half<kMiddle>(codes.hi, multiple.hi)};
  }
  static constexpr bool kLooksUpLowBits = false;
  static B load_table(const uint8_t* p) {
    const __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return {table, table};
  }
  static B look_up(B table, B codes) {
    return {_mm256_shuffle_epi8(table.lo, codes.lo), _mm256_shuffle_epi8(table.hi, codes.hi)};
  }
  static void turn_half(__m256i& a, __m256i& b, __m256i& c, __m256i& d) {
    const __m256i ab = _mm256_unpacklo_epi32(a, b), cd = _mm256_unpacklo_epi32(c, d);
    const __m256i ba = _mm256_unpackhi_epi32(a, b), dc = _mm256_unpackhi_epi32(c, d);
    a = _mm256_unpacklo_epi64(ab, cd), b = _mm256_unpackhi_epi64(ab, cd);
    c = _mm256_unpacklo_epi64(ba, dc), d = _mm256_unpackhi_epi64(ba, dc);
  }
  static void turn(B (&v)[4]) {
    turn_half(v[0].lo, v[1].lo, v[2].lo, v[3].lo);
    turn_half(v[0].hi, v[1].hi, v[2].hi, v[3].hi);
  }
  static __m256i fold_half(__m256i a, __m256i b, __m256i c, __m256i d) {
    return _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
  }
  static I fold(const I (&sums)[4]) {
    return {fold_half(sums[0].lo, sums[1].lo, sums[2].lo, sums[3].lo), fold_half(sums[0].hi, sums[1].hi, sums[2].hi, sums[3].hi)};
  }

#ifdef __AVXVNNI__
  static constexpr bool kLongSums = true;
  static constexpr bool kWideProducts = true;
  static constexpr int kByteOffset = 0;
  template <bool kSmall>
  static I dot(I acc, B w, int32_t four) {
    const __m256i a = _mm256_set1_epi32(four);
    return {_mm256_dpbusd_avx_epi32(acc.lo, w.lo, a), _mm256_dpbusd_avx_epi32(acc.hi, w.hi, a)};
  }
  static I dot_sixteen(I acc, B w, const int32_t* x) {
    const __m256i a = _mm256_broadcastsi128_si256(load128(x));
    return {_mm256_dpbusd_avx_epi32(acc.lo, w.lo, a), _mm256_dpbusd_avx_epi32(acc.hi, w.hi, a)};
  }
  template <bool kSmall>
  static I finish(I acc) {
    return acc;
  }
#else
  // Small codes: eight pair sums of at most 2 * 15 * 127 fit 16 bits, so a block widens once, in `finish`.
  // Bytes are centred: |code - 128| * sign(a, code - 128) keeps pair sums within 2 * 128 * 127 < 2^15.
  static constexpr bool kLongSums = false;
  static constexpr bool kWideProducts = false;
  static constexpr int kByteOffset = 128;
  static __m256i in_turn(__m256i sum) {  // g++ 12 else adds up all products of a block at its end, and keeps them on the stack
    asm("" : "+x"(sum));
    return sum;
  }
  template <bool kSmall>
  static __m256i dot_half(__m256i acc, __m256i w, __m256i a) {
    if constexpr (kSmall) return in_turn(_mm256_add_epi16(acc, _mm256_maddubs_epi16(w, a)));
    const __m256i level = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(level), _mm256_sign_epi8(a, level));
    return in_turn(_mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))));
  }
  template <bool kSmall>
  static I dot(I acc, B w, int32_t four) {
    const __m256i a = _mm256_set1_epi32(four);
    return {dot_half<kSmall>(acc.lo, w.lo, a), dot_half<kSmall>(acc.hi, w.hi, a)};
  }
  static I dot_sixteen(I acc, B w, const int32_t* x) {
    const __m256i a = _mm256_broadcastsi128_si256(load128(x));
    return {dot_half<false>(acc.lo, w.lo, a), dot_half<false>(acc.hi, w.hi, a)};
  }
  template <bool kSmall>
  static I finish(I acc) {
    if constexpr (!kSmall) return acc;
    const __m256i ones = _mm256_set1_epi16(1);
    return {_mm256_madd_epi16(acc.lo, ones), _mm256_madd_epi16(acc.hi, ones)};
  }
#endif
};

}  // namespace
