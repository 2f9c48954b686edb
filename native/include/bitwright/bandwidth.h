// What this machine's memory gives: the ceiling of decoding.
#pragma once

#include <cstddef>

namespace bitwright {

// Bytes a second that `threads` threads read from `bytes` of huge-page memory, the best of several passes.
double read_bandwidth(size_t bytes, int threads, double seconds);

}  // namespace bitwright
