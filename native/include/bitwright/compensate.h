// Error-compensating rounding of whole matrices, threaded over panels of 16 rows. Columns come in the order of rounding.
#pragma once

#include <cstddef>
#include <cstdint>

#include "bitwright/tables.h"

namespace bitwright {

// One grid for each row and group: level = clip(rint(w / scale) + zero_point, low, high).
struct RowGrids {
  const float* scales;       // (rows, groups)
  const float* zero_points;  // (rows, groups)
  const int32_t* group_of;   // (columns,)
  size_t groups;
  int low, high;
  const Tables* tables = nullptr;  // one, one for each row, or for each row and group: codes are theirs then, not level - low
};

// GPTQ, or GPTAQ with `drift`: weights (rows, columns) to codes, level - low. `factor`, `drift`: (columns, columns).
void compensate(const float* weights, size_t rows, size_t columns, const RowGrids& grids, const float* factor, const float* drift,
                uint8_t* codes);
// Sweeps of coordinate descent on (v - w) H (v - w)^T from the values v (rows, columns) and r = (v - w) H, to codes.
void descend(const float* values, const float* residuals, size_t rows, size_t columns, const RowGrids& grids, const float* gram,
             int sweeps, uint8_t* codes);

}  // namespace bitwright
