// Work on whole tensors, outside the token step.
#pragma once

#include <cstddef>
#include <functional>
#include <thread>
#include <vector>

#include "bitwright/thread_team.h"

namespace bitwright {

// Splits [0, count) among the cores; small work stays on the calling thread.
inline void in_parallel(size_t count, size_t values, const std::function<void(size_t, size_t)>& work) {
  const size_t parts = values < (size_t{1} << 16) ? 1 : static_cast<size_t>(available_cores());
  std::vector<std::thread> threads;
  for (size_t i = 1; i < parts; i++) threads.emplace_back(work, count * i / parts, count * (i + 1) / parts);
  work(0, count / parts);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace bitwright
