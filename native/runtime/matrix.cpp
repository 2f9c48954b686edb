#include "bitwright/matrix.h"

#include <algorithm>
#include <cstring>
#include <thread>
#include <vector>

#include "bitwright/quantization.h"
#include "bitwright/thread_team.h"

namespace bitwright {

namespace {

// Calls work(first panel, last panel) on all cores.
template <class Work>
void over_panels(int panels, const Work& work) {
  const int parts = panels < 8 ? 1 : available_cores();
  std::vector<std::thread> threads;
  for (int i = 1; i < parts; i++)
    threads.emplace_back([&work, share = Share(panels, i, parts)] { work(share.begin, share.end); });
  const Share share(panels, 0, parts);
  work(share.begin, share.end);
  for (std::thread& thread : threads) thread.join();
}

size_t scale_bytes(ScaleType type) { return type == ScaleType::fp16 ? 2 : 4; }
size_t round_up(size_t bytes) { return (bytes + 63) / 64 * 64; }  // parts of a record begin on a cache line
size_t zero_bytes(ZeroType type) { return type == ZeroType::fp32 ? 4 : type == ZeroType::uint8 ? 1 : 0; }

// Where step `step` of a block lies: vector and bit of its low part, as kernels/codes.h describes.
struct Place {
  int vector, shift;
};

Place place_of(int step, int bits) {
  if (bits == 3) return step < 6 ? Place{step / 2, step % 2 * 3} : Place{step - 6, 6};
  const int fields = 8 / bits;
  return {step / fields, step % fields * bits};
}

// One block of 16 rows x 32 columns of byte codes, [row][column], into the engine's order.
void store_block(const uint8_t* codes, size_t row_stride, int bits, uint8_t* out) {
  for (int step = 0; step < kBlock / 4; step++) {
    const Place place = place_of(step, bits);
    const bool split = bits == 3 && step >= 6;  // low two bits here, top bit in vector 2
    for (int row = 0; row < kPanelRows; row++)
      for (int i = 0; i < 4; i++) {
        const uint8_t code = codes[row * row_stride + 4 * step + i];
        out[place.vector * 64 + 4 * row + i] |= static_cast<uint8_t>((split ? code & 3 : code) << place.shift);
        if (split) out[128 + 4 * row + i] |= static_cast<uint8_t>((code >> 2) << step);
      }
  }
}

}  // namespace

Matrix::Matrix(const PackedSource& source) : rows_(source.rows), columns_(source.columns) {
  bits_ = source.bits <= 4 ? source.bits : 8;
  blocks_ = (columns_ + kBlock - 1) / kBlock;
  blocks_per_group_ = source.shared_scale || source.group == columns_ ? blocks_ : source.group / kBlock;
  groups_ = (blocks_ + blocks_per_group_ - 1) / blocks_per_group_;
  scale_type_ = source.scale_type;
  zero_type_ = source.zero_type;
  rotated_ = source.rotated;
  has_table_ = source.table != nullptr;
  if (has_table_) std::copy_n(source.table, table_.size(), table_.begin());
  const bool multiple = scale_type_ == ScaleType::multiple;
  zeros_at_ = round_up((multiple ? 1 : groups_) * kPanelRows * scale_bytes(scale_type_));
  codes_at_ = zeros_at_ + round_up(groups_ * kPanelRows * (multiple ? 1 : zero_bytes(zero_type_)));
  record_bytes_ = codes_at_ + static_cast<size_t>(blocks_) * code_bytes(bits_);
  data_ = Buffer(panels() * record_bytes_);
  over_panels(panels(), [&](int begin, int end) {
    std::vector<uint8_t> rows(static_cast<size_t>(kPanelRows) * blocks_ * kBlock);
    for (int p = begin; p < end; p++) repack_panel(source, p, rows.data());
  });
}

void Matrix::repack_panel(const PackedSource& source, int panel, uint8_t* codes_of_rows) {
  uint8_t* record = data_.as<uint8_t>() + panel * record_bytes_;
  const size_t stride = static_cast<size_t>(blocks_) * kBlock;
  const size_t row_bytes = (static_cast<size_t>(columns_) * source.bits + 7) / 8;
  // Codes of 5 to 7 bits move to the middle of a byte, so that their symmetric zero is a byte's.
  const int lift = bits_ == 8 ? 128 - (1 << (source.bits - 1)) : 0;
  const size_t unit = scale_bytes(scale_type_);
  const bool multiple = scale_type_ == ScaleType::multiple;
  for (int lane = 0; lane < kPanelRows; lane++) {
    const int row = panel * kPanelRows + lane;
    uint8_t* codes = codes_of_rows + lane * stride;
    std::memset(codes, 0, stride);
    if (row >= rows_) continue;  // padding rows: codes and scales of zero, never written out
    unpack_row(source.codes + row * row_bytes, columns_, source.bits, codes);
    for (int k = 0; lift != 0 && k < columns_; k++) codes[k] = static_cast<uint8_t>(codes[k] + lift);
    const auto copy_scale = [&](size_t from, int to) {
      std::memcpy(record + (static_cast<size_t>(to) * kPanelRows + lane) * unit,
                  static_cast<const uint8_t*>(source.scales) + from * unit, unit);
    };
    if (multiple) copy_scale(row, 0);
    for (int g = 0; g < groups_; g++) {
      const size_t from = source.shared_scale ? 0 : static_cast<size_t>(row) * groups_ + g, to = g * kPanelRows + lane;
      if (!multiple) copy_scale(from, g);
      uint8_t* zeros = record + zeros_at_;
      if (multiple) zeros[to] = static_cast<uint8_t>(source.multiples[from]);
      if (zero_type_ == ZeroType::uint8)
        zeros[to] = static_cast<uint8_t>(static_cast<const uint8_t*>(source.zero_points)[from] + lift);
      if (zero_type_ == ZeroType::fp32)
        reinterpret_cast<float*>(zeros)[to] = static_cast<const float*>(source.zero_points)[from] + static_cast<float>(lift);
    }
  }
  for (int b = 0; b < blocks_; b++)
    store_block(codes_of_rows + static_cast<size_t>(b) * kBlock, stride, bits_,
                record + codes_at_ + static_cast<size_t>(b) * code_bytes(bits_));
}

Matrix::Matrix(const DenseSource& source) : rows_(source.rows), columns_(source.columns), type_(source.type) {
  const size_t unit = type_ == DenseType::fp32 ? 4 : 2;
  data_ = Buffer(static_cast<size_t>(panels()) * columns_ * kPanelRows * unit);
  over_panels(panels(), [&](int begin, int end) {
    for (int row = begin * kPanelRows; row < end * kPanelRows && row < rows_; row++) {
      const uint8_t* from = static_cast<const uint8_t*>(source.values) + static_cast<size_t>(row) * columns_ * unit;
      uint8_t* to =
          data_.as<uint8_t>() + (static_cast<size_t>(row / kPanelRows) * columns_ * kPanelRows + row % kPanelRows) * unit;
      for (int k = 0; k < columns_; k++) std::memcpy(to + static_cast<size_t>(k) * kPanelRows * unit, from + k * unit, unit);
    }
  });
}

QuantizedPanels Matrix::quantized_panels() const {
  return {.records = data_.as<uint8_t>(),
          .table = has_table_ ? table_.data() : nullptr,
          .record_bytes = record_bytes_,
          .zeros_at = zeros_at_,
          .codes_at = codes_at_,
          .scale_type = scale_type_,
          .zero_type = zero_type_,
          .bits = bits_,
          .rows = rows_,
          .columns = columns_,
          .blocks = blocks_,
          .blocks_per_group = blocks_per_group_};
}

DensePanels Matrix::dense_panels() const { return {data_.as<void>(), type_, rows_, columns_}; }

void Matrix::read_row(int row, float* out) const {
  const int panel = row / kPanelRows, lane = row % kPanelRows;
  const Kernels& k = kernels();
  if (quantized()) {
    std::vector<float> values(static_cast<size_t>(blocks_) * kBlock * kPanelRows);
    k.dequantize_panel(quantized_panels(), panel, values.data());
    for (int i = 0; i < columns_; i++) out[i] = values[static_cast<size_t>(i) * kPanelRows + lane];
    if (rotated_) k.hadamard(out, columns_, rotation_block(columns_));
    return;
  }
  // The product with a unit vector reads one column of 16 rows; here every column is asked for one lane.
  const size_t unit = type_ == DenseType::fp32 ? 4 : 2;
  const float one = 1.0f;
  float lanes[kPanelRows];
  for (int i = 0; i < columns_; i++) {
    const uint8_t* column = data_.as<uint8_t>() + (static_cast<size_t>(panel) * columns_ + i) * kPanelRows * unit;
    k.dense_panel(type_, column, 1, DenseInput{&one, 1, false}, 1, Output{lanes, kPanelRows, false});
    out[i] = lanes[lane];
  }
}

}  // namespace bitwright
