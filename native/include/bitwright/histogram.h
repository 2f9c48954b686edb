// Counting values in even bins, for the observer of src/bitwright/observers/histogram.py. Threaded over values.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bitwright {

// Adds to `counts` how many of the n values lie in each of `bins` even bins over [-2^exponent, 2^exponent). Values beyond
// count for the outermost bins. Returns the largest |x|; NaN where a value is NaN.
float count_in_bins(const float* x, size_t n, int exponent, int bins, int64_t* counts);

}  // namespace bitwright
