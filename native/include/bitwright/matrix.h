// A weight matrix in the engine's own layout, repacked once at load from the rows of a file.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <variant>

#include "bitwright/buffer.h"
#include "bitwright/kernels.h"

namespace bitwright {

// Rows as they lie in an artifact: bit streams of codes, one scale (and zero point) for each group of columns.
struct PackedSource {
  const uint8_t* codes;     // (rows, row bytes)
  const void* scales;       // (rows, groups a row); ScaleType::multiple: (rows,) of fp32
  const void* zero_points;  // as scales, or null
  ScaleType scale_type;
  ZeroType zero_type;
  int bits;
  int rows, columns, group;   // `group` divides `columns` and is a multiple of 32 or all of them
  bool shared_scale = false;  // one scale for the whole tensor
  const int8_t* multiples =
      nullptr;  // (rows, groups a row), ScaleType::multiple only: scale = multiple * the row's; 4 bits at most
  TableType table_type = TableType::none;
  const uint8_t* table = nullptr;  // (16,) levels, or (rows, 16), 128 standing for zero; 4 bits at most and no zero points
  bool rotated = false;            // columns are in the Hadamard basis of `rotation_block(columns)`
};

// Columns that one Hadamard transform of a row spans: the largest power of two up to 64 that divides them, 1 for none.
constexpr int rotation_block(int columns) {
  int block = 1;
  while (block < 64 && columns % (2 * block) == 0) block *= 2;
  return block;
}

struct DenseSource {
  const void* values;  // (rows, columns)
  DenseType type;      // fp32, fp16 or bf16
  int rows, columns;
};

using MatrixSource = std::variant<PackedSource, DenseSource>;

class Matrix {
 public:
  Matrix() = default;
  explicit Matrix(const MatrixSource& source);  // filled on all cores
  // Of the source's shape and layout, zero until panels [begin, end) are filled; different ones may be at the same time.
  static Matrix laid_out(const MatrixSource& source);
  void fill(const MatrixSource& source, int begin, int end);

  bool empty() const { return rows_ == 0; }
  bool quantized() const { return bits_ != 0; }
  int rows() const { return rows_; }
  int columns() const { return columns_; }
  int panels() const { return (rows_ + kPanelRows - 1) / kPanelRows; }
  // Its rows are to be multiplied by rotated activations; see `rotation_block`.
  bool rotated() const { return rotated_; }
  // Bytes under one scale a row: a matrix unit takes them as they lie, and its sums stay integers over the row.
  bool plain_bytes() const { return bits_ == 8 && groups_ == 1; }
  bool multiples() const { return scale_type_ == ScaleType::multiple; }
  size_t bytes() const { return data_.size(); }
  QuantizedPanels quantized_panels() const;
  DensePanels dense_panels() const;
  // One row as float, in the basis of the model.
  void read_row(int row, float* out) const;

 private:
  void lay_out(const PackedSource& source);
  void lay_out(const DenseSource& source);
  void repack_panel(const PackedSource& source, int panel, uint8_t* codes_of_rows);
  void repack_scales(const PackedSource& source, int panel, int lane);
  void repack_panel(const DenseSource& source, int panel);

  int rows_ = 0, columns_ = 0;
  int bits_ = 0;  // 2, 3, 4 or 8; 0 for dense
  int blocks_ = 0, blocks_per_group_ = 0, groups_ = 0;
  size_t record_bytes_ = 0, zeros_at_ = 0, codes_at_ = 0;
  DenseType type_ = DenseType::fp32;
  ScaleType scale_type_ = ScaleType::fp32;
  ZeroType zero_type_ = ZeroType::middle;
  bool rotated_ = false;
  TableType table_type_ = TableType::none;
  std::array<uint8_t, kTableLevels> table_{};
  Buffer data_;  // records, or dense panels
};

}  // namespace bitwright
