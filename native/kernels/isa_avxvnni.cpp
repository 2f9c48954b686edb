#include "simd_avx2.h"
#include "table.h"

namespace bitwright {
extern const Kernels kKernels_avxvnni;
const Kernels kKernels_avxvnni = make_table<Avx2>();
}  // namespace bitwright
