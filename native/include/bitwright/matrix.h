// A weight matrix in the engine's own layout, repacked once at load from the rows of a file.
#pragma once

#include <cstddef>
#include <cstdint>

#include "bitwright/buffer.h"
#include "bitwright/kernels.h"

namespace bitwright {

// Rows as they lie in an artifact: bit streams of codes, one scale (and zero point) for each group of columns.
struct PackedSource {
  const uint8_t* codes;     // (rows, row bytes)
  const void* scales;       // (rows, groups a row)
  const void* zero_points;  // as scales, or null
  ScaleType scale_type;
  ZeroType zero_type;
  int bits;
  int rows, columns, group;  // `group` divides `columns` and is a multiple of 32 or all of them
  bool shared_scale;         // one scale for the whole tensor
};

struct DenseSource {
  const void* values;  // (rows, columns)
  DenseType type;      // fp32, fp16 or bf16
  int rows, columns;
};

class Matrix {
 public:
  Matrix() = default;
  explicit Matrix(const PackedSource& source);
  explicit Matrix(const DenseSource& source);

  bool empty() const { return rows_ == 0; }
  bool quantized() const { return bits_ != 0; }
  int rows() const { return rows_; }
  int columns() const { return columns_; }
  int panels() const { return (rows_ + kPanelRows - 1) / kPanelRows; }
  size_t bytes() const { return codes_.size() + scales_.size() + zero_points_.size(); }
  QuantizedPanels quantized_panels() const;
  DensePanels dense_panels() const;
  // One row as float.
  void read_row(int row, float* out) const;

 private:
  void repack_panel(const PackedSource& source, int panel, uint8_t* codes_of_rows);

  int rows_ = 0, columns_ = 0;
  int bits_ = 0;  // 2, 3, 4 or 8; 0 for dense
  int blocks_ = 0, blocks_per_group_ = 0;
  DenseType type_ = DenseType::fp32;
  ScaleType scale_type_ = ScaleType::fp32;
  ZeroType zero_type_ = ZeroType::middle;
  Buffer codes_, scales_, zero_points_;
};

}  // namespace bitwright
