#include "simd_neon.h"
#include "table.h"

namespace bitwright {
extern const Kernels kKernels_i8mm;
const Kernels kKernels_i8mm = make_table<Neon>();
}  // namespace bitwright
