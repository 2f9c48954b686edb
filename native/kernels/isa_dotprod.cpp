#include "simd_neon.h"
#include "table.h"

namespace bitwright {
extern const Kernels kKernels_dotprod;
const Kernels kKernels_dotprod = make_table<Neon>();
}  // namespace bitwright
