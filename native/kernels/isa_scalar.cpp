#include "simd_scalar.h"
#include "table.h"

namespace bitwright {
extern const Kernels kKernels_scalar;
const Kernels kKernels_scalar = make_table<Scalar>();
}  // namespace bitwright
