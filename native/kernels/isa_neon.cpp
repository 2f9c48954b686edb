#include "simd_neon.h"
#include "table.h"

namespace bitwright {
extern const Kernels kKernels_neon;
const Kernels kKernels_neon = make_table<Neon>();
}  // namespace bitwright
