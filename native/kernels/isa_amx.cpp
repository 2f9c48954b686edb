#include "simd_avx512.h"
#include "table.h"
#include "tiled_matmul.h"

namespace bitwright {

// AVX-512 with AMX-INT8 for prompts; a single row is read at the speed of memory without it.
extern const Kernels kKernels_amx;
const Kernels kKernels_amx = [] {
  Kernels kernels = make_table<Avx512>();
  kernels.name = "amx";
  kernels.few_rows = 2;
  kernels.packed = true;
  kernels.quantized_matmul = tiled_matmul<Avx512, Amx>;
  return kernels;
}();

}  // namespace bitwright
