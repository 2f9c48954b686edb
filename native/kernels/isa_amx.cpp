#include "simd_avx512.h"
#include "table.h"
#include "tiled_attention.h"
#include "tiled_matmul.h"

namespace bitwright {

static constexpr MatrixAttention kAttention = {matrix_row<Avx512>, softmax_rows<Avx512>, turn_panels<Avx512>, begin_tiles<Amx>,
                                               Amx::end,           turned_matmul<Amx>};

// AVX-512 with AMX for prompts and attention; a single row's products are read at the speed of memory without it.
extern const Kernels kKernels_amx;
const Kernels kKernels_amx = [] {
  Kernels kernels = make_table<Avx512>();
  kernels.name = "amx";
  kernels.few_of_bytes = 2, kernels.few_of_multiples = 8;  // more are multiplied faster by the unit
  kernels.packed = true;
  kernels.attention = &kAttention;
  kernels.quantized_matmul = tiled_matmul<Avx512, Amx>;
  return kernels;
}();

}  // namespace bitwright
