#include "emulated_vnni.h"

#include "quantized_matmul.h"
#include "quantized_rows.h"
#include "quantized_vector.h"
#include "simd_avx2.h"

namespace {

// Avx2 with the lines of AVX-VNNI in place of its own.
struct EmulatedVnni : Avx2 {
  static constexpr bool kLongSums = true;
  static constexpr bool kWideProducts = true;
  static constexpr int kByteOffset = 0;

  // acc + the four products of each lane: even bytes, then odd ones, as pairs of 16-bit numbers
  static __m256i dpbusd(__m256i acc, __m256i w, __m256i a) {
    const __m256i even =
        _mm256_madd_epi16(_mm256_and_si256(w, _mm256_set1_epi16(0xFF)), _mm256_srai_epi16(_mm256_slli_epi16(a, 8), 8));
    const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(w, 8), _mm256_srai_epi16(a, 8));
    return _mm256_add_epi32(acc, _mm256_add_epi32(even, odd));
  }
  template <bool kSmall>
  static I dot(I acc, B w, int32_t four) {
    const __m256i a = _mm256_set1_epi32(four);
    return {dpbusd(acc.lo, w.lo, a), dpbusd(acc.hi, w.hi, a)};
  }
  static I dot_sixteen(I acc, B w, const int32_t* x) {
    const __m256i a = _mm256_broadcastsi128_si256(load128(x));
    return {dpbusd(acc.lo, w.lo, a), dpbusd(acc.hi, w.hi, a)};
  }
  template <bool kSmall>
  static I finish(I acc) {
    return acc;
  }
};

}  // namespace

const bitwright::Kernels kEmulatedVnni = [] {
  bitwright::Kernels kernels{};
  kernels.name = "emulated avxvnni";
  kernels.tile = EmulatedVnni::kTile;
  kernels.few_of_bytes = kernels.few_of_multiples = bitwright::kFewRows;
  kernels.quantized_vector = quantized_vector<EmulatedVnni>;
  kernels.quantized_matmul = quantized_matmul<EmulatedVnni>;
  kernels.quantize_row = quantize_row<EmulatedVnni>;
  return kernels;
}();
