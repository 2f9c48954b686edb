// Second moments of bfloat16 activations on the matrix unit, for src/bitwright/calibration/decoder.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bitwright {

// AMX-BF16, where kernels() is not held back to another instruction set.
bool has_bfloat16_tiles();

// X^T X of x (tokens, columns) bfloat16 to (columns, columns) float32, on and above the diagonal; the rest is zero. Products are
// exact, sums float32. Only where has_bfloat16_tiles(). Threaded over tokens.
void bfloat16_gram(const uint16_t* x, size_t tokens, size_t columns, float* gram);

}  // namespace bitwright
