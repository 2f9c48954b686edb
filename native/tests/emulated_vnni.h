// The kernels as AVX-VNNI runs them, its one instruction written out in AVX2: few machines have AVX-VNNI, and QEMU does not
// emulate it.
#pragma once

#include "bitwright/kernels.h"

extern const bitwright::Kernels kEmulatedVnni;  // the products of codes and what they need; all else is null
