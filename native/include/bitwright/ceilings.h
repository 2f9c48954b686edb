// What this machine gives: the ceilings that the engine's speed is held against.
#pragma once

#include <cstddef>

namespace bitwright {

// Bytes a second that `threads` threads read from `bytes` of huge-page memory, the best of several passes.
double read_bandwidth(size_t bytes, int threads, double seconds);

enum class MatrixType { int8, bf16 };

// The machine's best dot product of that type, or null where it has none that is known here.
const char* matrix_instruction(MatrixType type);

// Operations a second, two for each multiply-add, of `threads` threads that do nothing but that dot product on registers:
// the best of several passes, or 0 without such an instruction.
double matrix_peak(MatrixType type, int threads, double seconds);

}  // namespace bitwright
