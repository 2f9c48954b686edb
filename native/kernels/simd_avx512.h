// Sixteen lanes as one 512-bit register: AVX-512 F, BW, VL, DQ and VNNI; BF16 and VBMI where the file that includes this has
// them.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace {

struct Avx512 {
  static constexpr const char* kName = "avx512vnni";
  static constexpr int kTile = 12;
  static constexpr bool kLongSums = true;  // of small levels too: `finish` may wait
  static constexpr bool kWideProducts = true;

  using F = __m512;
  using I = __m512i;
  struct B {
    __m512i v;
  };
  static F set1(float x) { return _mm512_set1_ps(x); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static __m128i load128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
  static __m256i load256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  static F load_fp16(const uint16_t* p) { return _mm512_cvtph_ps(load256(p)); }
  static F load_bf16(const uint16_t* p) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load256(p)), 16)); }
  static F load_uint8(const uint8_t* p) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(load128(p))); }
  static void store(float* p, F a) { _mm512_storeu_ps(p, a); }
  static void store_fp16(uint16_t* p, F a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
  }
#ifdef __AVX512BF16__
  static void store_bf16(uint16_t* p, F a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(a)));
  }
  static void store_bf16(uint16_t* p, F a, F b) { _mm512_storeu_si512(p, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b, a))); }
  // Lane by lane an even and an odd one.
  static void store_bf16_pairs(uint16_t* p, F even, F odd) {
    alignas(64) static constexpr uint16_t kOrder[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const auto both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(odd, even));
    _mm512_storeu_si512(p, _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), both));
  }
#endif
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F abs(F a) { return _mm512_abs_ps(a); }
  static F round(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static F pow2(F a) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(a), _mm512_set1_epi32(127)), 23));
  }
  // 2^t for t from -126 to 127: 2^floor(t) times a polynomial of the rest with the least relative error, 8e-8; the rough one,
  // for weights that are rounded to bf16, 8e-5.
  template <size_t kTerms>
  static F exp2(F t, const float (&coefficients)[kTerms]) {
    const F rest = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    F y = set1(coefficients[0]);
    for (size_t i = 1; i < kTerms; i++) y = fma(y, rest, set1(coefficients[i]));
    return _mm512_scalef_ps(y, t);  // which takes t's floor
  }
  static F exp2(F t) {
    return exp2(t, {0.0018775765784084797f, 0.008989340625703335f, 0.05582631751894951f, 0.24015361070632935f,
                    0.6931530833244324f, 0.9999999403953552f});
  }
  static F exp2_rough(F t) {
    return exp2(t, {0.07802450656890869f, 0.2260672152042389f, 0.6958335041999817f, 0.9999251961708069f});
  }
  // a / b within two units in the last place; zero where 1 / b is no normal number.
  static F quotient(F a, F b) {
    const F r = _mm512_rcp14_ps(b);
    return _mm512_mul_ps(a, _mm512_mul_ps(r, _mm512_fnmadd_ps(b, r, set1(2.0f))));
  }
  // 64 products x * inverse as bytes, the first 32 by the first inverse, and the sum of each 32 codes.
  static void round_blocks(const float* x, const float* inverses, int8_t* codes, int32_t* sums) {
    __m512i q[4];
    for (int i = 0; i < 4; i++) q[i] = _mm512_cvtps_epi32(_mm512_mul_ps(load(x + 16 * i), set1(inverses[i / 2])));
    const __m512i mixed = _mm512_packs_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i bytes = _mm512_permutexvar_epi32(order, mixed);
    _mm512_storeu_si512(codes, bytes);
    const __m512i fours = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), bytes);
    for (int half = 0; half < 2; half++) {
      const __m256i eight = half == 0 ? _mm512_castsi512_si256(fours) : _mm512_extracti64x4_epi64(fours, 1);
      __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
      four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4E));
      sums[half] = _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xB1)));
    }
  }
  static void store_int8(int8_t* p, F whole) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(whole)));
  }
  static void store_uint8(uint8_t* p, F whole) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(whole)));
  }
  template <int kDistance>
  static F swap_lanes(F a) {  // lane i takes lane i ^ kDistance
    if constexpr (kDistance == 1) return _mm512_permute_ps(a, 0xB1);
    if constexpr (kDistance == 2) return _mm512_permute_ps(a, 0x4E);
    if constexpr (kDistance == 4) return _mm512_shuffle_f32x4(a, a, 0xB1);
    return _mm512_shuffle_f32x4(a, a, 0x4E);
  }
  static __m256 upper(F a) { return _mm512_extractf32x8_ps(a, 1); }
  static float sum(F a) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a), upper(a));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
  }
  static float highest(F a) {
    const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a), upper(a));
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
  }

  static I broadcast(int32_t x) { return _mm512_set1_epi32(x); }
  static I add_int(I a, I b) { return _mm512_add_epi32(a, b); }
  static I load_int(const int32_t* p) { return _mm512_loadu_si512(p); }
  static void store_int(int32_t* p, I a) { _mm512_storeu_si512(p, a); }
  static I mul_int(I a, I b) { return _mm512_mullo_epi32(a, b); }
  static I load_int8_lanes(const int8_t* p) { return _mm512_cvtepi8_epi32(load128(p)); }
  static I shift_right(I a, int bits) { return _mm512_sra_epi32(a, _mm_cvtsi32_si128(bits)); }
  static F to_float(I a) { return _mm512_cvtepi32_ps(a); }
  static I byte(B w, int j) { return _mm512_and_si512(_mm512_srl_epi32(w.v, _mm_cvtsi32_si128(8 * j)), _mm512_set1_epi32(0xFF)); }

  static B load_bytes(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
  static void store_bytes(uint8_t* p, B a) { _mm512_storeu_si512(p, a.v); }
  template <int kShift>
  static B field(B w, uint8_t mask) {
    const __m512i m = _mm512_set1_epi8(static_cast<char>(mask));
    if constexpr (kShift > 0) return {_mm512_and_si512(_mm512_srli_epi16(w.v, kShift), m)};
    if constexpr (kShift < 0) return {_mm512_and_si512(_mm512_slli_epi16(w.v, -kShift), m)};
    return {_mm512_and_si512(w.v, m)};
  }
  static B either(B a, B b) { return {_mm512_or_si512(a.v, b.v)}; }
  template <uint8_t kByte>
  static B subtract(B a) {
    if constexpr (kByte == 0) return a;
    return {_mm512_sub_epi8(a.v, _mm512_set1_epi8(static_cast<char>(kByte)))};
  }
  // (byte - kMiddle) * multiple of its lane + 128, for results of -128 to 127 above 128
  template <int kMiddle>
  static B multiply_bytes(B codes, I multiple) {
    const __m512i factor =
        _mm512_or_si512(_mm512_and_si512(multiple, _mm512_set1_epi32(0xFFFF)), _mm512_slli_epi32(multiple, 16));
    const __m512i centred = _mm512_sub_epi8(codes.v, _mm512_set1_epi8(kMiddle));
    const __m512i even = _mm512_mullo_epi16(centred, factor);  // in its low byte only the low byte of a lane counts
    const __m512i odd = _mm512_mullo_epi16(_mm512_srli_epi16(centred, 8), factor);
    const __m512i both = _mm512_mask_blend_epi8(0xAAAAAAAAAAAAAAAAull, even, _mm512_slli_epi16(odd, 8));
    return {_mm512_add_epi8(both, _mm512_set1_epi8(static_cast<char>(128)))};
  }
  static B load_table(const uint8_t* p) { return {_mm512_broadcast_i32x4(load128(p))}; }
#ifdef __AVX512VBMI__
  static constexpr bool kLooksUpLowBits = true;  // bits of a byte above its code may be anything: the table stands there 4 times
  template <int kShift>
  static B shifted(B w) {
    return {kShift == 0 ? w.v : _mm512_srli_epi16(w.v, kShift)};
  }
  static B look_up_low_bits(B table, B codes) { return {_mm512_permutexvar_epi8(codes.v, table.v)}; }
#else
  static constexpr bool kLooksUpLowBits = false;
#endif
  static B look_up(B tables, B codes) { return {_mm512_shuffle_epi8(tables.v, codes.v)}; }
  static void turn(B (&v)[4]) {
    const __m512i ab = _mm512_unpacklo_epi32(v[0].v, v[1].v), cd = _mm512_unpacklo_epi32(v[2].v, v[3].v);
    const __m512i ba = _mm512_unpackhi_epi32(v[0].v, v[1].v), dc = _mm512_unpackhi_epi32(v[2].v, v[3].v);
    v[0].v = _mm512_unpacklo_epi64(ab, cd), v[1].v = _mm512_unpackhi_epi64(ab, cd);
    v[2].v = _mm512_unpacklo_epi64(ba, dc), v[3].v = _mm512_unpackhi_epi64(ba, dc);
  }

  static constexpr int kByteOffset = 0;
  template <bool kSmall>
  static I dot(I acc, B w, int32_t four) {
    return _mm512_dpbusd_epi32(acc, w.v, _mm512_set1_epi32(four));
  }
  static I dot_sixteen(I acc, B w, const int32_t* x) { return _mm512_dpbusd_epi32(acc, w.v, _mm512_broadcast_i32x4(load128(x))); }
  static I fold_pair(I a, I b) { return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b)); }
  static I fold(const I (&sums)[4]) {
    const I first = fold_pair(sums[0], sums[1]), second = fold_pair(sums[2], sums[3]);
    return _mm512_add_epi32(_mm512_unpacklo_epi64(first, second), _mm512_unpackhi_epi64(first, second));
  }
  template <bool kSmall>
  static I finish(I acc) {
    return acc;
  }
};

}  // namespace
