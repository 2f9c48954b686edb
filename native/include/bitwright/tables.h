// Groups of weights against tables of levels, as src/bitwright/formats/table.py describes them. Threaded over groups.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bitwright {

// Tables in ascending order. Each serves groups / count groups, one after the other.
struct Tables {
  const float* thresholds;  // (count, levels - 1): a value takes the level above where it is greater
  const float* values;      // (count, levels)
  const uint8_t* codes;     // (count, levels)
  size_t count;
  int levels;
};

// (groups, n) weights over their group's scale to codes.
void encode_tables(const float* x, size_t groups, size_t n, const float* scale, const Tables& tables, uint8_t* codes);

// Squared error of each group; with `importance`, (groups a row * n,), each column's error counts that many times.
struct Importance {
  const float* of_column = nullptr;
  size_t groups_a_row = 1;
};
void table_error(const float* x, size_t groups, size_t n, const float* scale, const Tables& tables, const Importance& importance,
                 float* error);

}  // namespace bitwright
