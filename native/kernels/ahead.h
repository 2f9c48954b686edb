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
    for (size_t wanted = lines_;;) {
      const size_t rest = next_ < end() ? (end() - next_ + kLine - 1) / kLine : 0, now = rest < wanted ? rest : wanted;
      const uint8_t* line = next_;
      for (size_t i = 0; i < now; i++, line += kLine) __builtin_prefetch(line, 0, 2);
      next_ = line, wanted -= now;
      if (wanted == 0 || left_ == 0) return;
      left_--, next_ = strip_.begin += stride_;
    }
  }

 private:
  static constexpr size_t kLine = 64;
  const uint8_t* end() const { return strip_.begin + strip_.bytes; }
  bitwright::MemoryRange strip_;  // the one at hand
  const uint8_t* next_;
  size_t stride_;
  int left_;  // strips behind it
  size_t lines_;
};

}  // namespace
