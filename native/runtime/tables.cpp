#include "bitwright/tables.h"

#include <algorithm>

#include "bitwright/kernels.h"
#include "parallel.h"

namespace bitwright {

namespace {

constexpr int kChunk = 64;
constexpr int kFewLevels = 16;  // up to which all thresholds are compared with, rather than searched

// How many of the thresholds are below each of the values.
void count_below(const float* values, int n, const float* thresholds, int count, int32_t* below) {
  if (count < kFewLevels) {
    std::fill(below, below + n, 0);
    for (int k = 0; k < count; k++)
      for (int i = 0; i < n; i++) below[i] += values[i] > thresholds[k];
    return;
  }
  for (int i = 0; i < n; i++)
    below[i] = static_cast<int32_t>(std::lower_bound(thresholds, thresholds + count, values[i]) - thresholds);
}

// Calls use(i, positions, m) for values i .. i + m of a group, with their places among the sorted levels.
template <class Use>
void for_each_chunk(const float* x, size_t n, float scale, const float* thresholds, int levels, const Use& use) {
  float values[kChunk];
  int32_t positions[kChunk];
  for (size_t i = 0; i < n; i += kChunk) {
    const int m = static_cast<int>(std::min<size_t>(kChunk, n - i));
    for (int j = 0; j < m; j++) values[j] = x[i + j] / scale;
    count_below(values, m, thresholds, levels - 1, positions);
    use(i, positions, m);
  }
}

}  // namespace

void encode_tables(const float* x, size_t groups, size_t n, const float* scale, const Tables& tables, uint8_t* codes) {
  in_parallel(groups, groups * n, [&](size_t begin, size_t end) {
    for (size_t g = begin; g < end; g++) {
      const size_t table = g / (groups / tables.count);
      const uint8_t* of_level = tables.codes + table * tables.levels;
      for_each_chunk(x + g * n, n, scale[g], tables.thresholds + table * (tables.levels - 1), tables.levels,
                     [&](size_t i, const int32_t* positions, int m) {
                       for (int j = 0; j < m; j++) codes[g * n + i + j] = of_level[positions[j]];
                     });
    }
  });
}

void table_error(const float* x, size_t groups, size_t n, const float* scale, const Tables& tables, const Importance& importance,
                 float* error) {
  in_parallel(groups, groups * n, [&](size_t begin, size_t end) {
    for (size_t g = begin; g < end; g++) {
      const size_t table = g / (groups / tables.count);
      const float* values = tables.values + table * tables.levels;
      const float* weight = importance.of_column ? importance.of_column + (g % importance.groups_a_row) * n : nullptr;
      if (tables.levels <= kFewLevels) {
        error[g] = kernels().table_error(x + g * n, weight, static_cast<int>(n), scale[g], values, tables.levels);
        continue;
      }
      double total = 0;
      for_each_chunk(x + g * n, n, scale[g], tables.thresholds + table * (tables.levels - 1), tables.levels,
                     [&](size_t i, const int32_t* positions, int m) {
                       for (int j = 0; j < m; j++) {
                         const float difference = values[positions[j]] * scale[g] - x[g * n + i + j];
                         total += static_cast<double>(difference) * difference * (weight ? weight[i + j] : 1.0f);
                       }
                     });
      error[g] = static_cast<float>(total);
    }
  });
}

}  // namespace bitwright
