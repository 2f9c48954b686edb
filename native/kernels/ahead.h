// What is read next, asked for from memory while other work is done.
#pragma once

#include <cstddef>
#include <cstdint>

#include "bitwright/kernels.h"

namespace {

// So many lines at each of the visits as make an even stream of it. They go to the second cache: the first has room for the
// product at hand only.
class Ahead {
 public:
  Ahead(bitwright::MemoryStrips strips, int visits)
      : strip_(strips.first),
        next_(strip_.begin),
        stride_(strips.stride),
        left_(strips.count - 1),
        lines_(strips.count * (strip_.bytes / kLine + 1) / static_cast<size_t>(visits) + 1) {}
  void step() {
    for (size_t i = 0; i < lines_; i++, next_ += kLine) {
      if (next_ >= strip_.begin + strip_.bytes) {
        if (left_ == 0) return;
        left_--, next_ = strip_.begin += stride_;
      }
      __builtin_prefetch(next_, 0, 2);
    }
  }

 private:
  static constexpr size_t kLine = 64;
  bitwright::MemoryRange strip_;  // the one at hand
  const uint8_t* next_;
  size_t stride_;
  int left_;  // strips behind it
  size_t lines_;
};

}  // namespace
