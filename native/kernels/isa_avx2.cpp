#include "simd_avx2.h"
#include "table.h"

namespace bitwright {
extern const Kernels kKernels_avx2;
const Kernels kKernels_avx2 = make_table<Avx2>();
}  // namespace bitwright
