#include "simd_avx512.h"
#include "table.h"

namespace bitwright {
extern const Kernels kKernels_avx512vnni;
const Kernels kKernels_avx512vnni = make_table<Avx512>();
}  // namespace bitwright
