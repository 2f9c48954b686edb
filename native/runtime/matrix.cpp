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

constexpr int kSteps = kBlock / 4;

// What one lane has of a block into its places: four columns of a step are one word, and no code leaves its byte.
template <int kBits>
void store_lane(const uint32_t (&steps)[kSteps], uint8_t* out) {
  uint32_t words[kBits];
  if constexpr (kBits == 3) {
    constexpr uint32_t kLow = 0x03030303, kTop = 0x01010101;
    words[0] = steps[0] | steps[1] << 3 | (steps[6] & kLow) << 6;
    words[1] = steps[2] | steps[3] << 3 | (steps[7] & kLow) << 6;
    words[2] = steps[4] | steps[5] << 3 | (steps[6] >> 2 & kTop) << 6 | (steps[7] >> 2 & kTop) << 7;
  } else {
    constexpr int kFields = 8 / kBits;
    for (int i = 0; i < kBits; i++) {
      words[i] = 0;
      for (int f = 0; f < kFields; f++) words[i] |= steps[i * kFields + f] << (f * kBits);
    }
  }
  for (int i = 0; i < kBits; i++) std::memcpy(out + i * kPanelRows * 4, &words[i], 4);
}

// One block of 16 rows x 32 columns of byte codes, [row][column], into the order that kernels/codes.h describes, turned
// where rows have tables of their own.
template <int kBits>
void store_block(const uint8_t* codes, size_t row_stride, bool turned, uint8_t* out) {
  for (int lane = 0; lane < kPanelRows; lane++) {
    uint32_t steps[kSteps];
    for (int s = 0; s < kSteps; s++) {
      const int row = turned ? lane / 4 * 4 + s % 4 : lane, step = turned ? s / 4 * 4 + lane % 4 : s;
      std::memcpy(steps + s, codes + row * row_stride + 4 * step, 4);
    }
    store_lane<kBits>(steps, out + 4 * lane);
  }
}

// Rows of whole blocks whose words of four bytes are in the order of a block already, once `order` is done to each: word by
// word, all lanes side by side.
template <class Order>
void turn_words(const uint8_t* rows, size_t row_bytes, int lanes, uint8_t* out, const Order& order) {
  for (size_t at = 0; at < row_bytes; at += 4, out += kPanelRows * 4)
    for (int lane = 0; lane < lanes; lane++) {
      uint32_t word;
      std::memcpy(&word, rows + lane * row_bytes + at, 4);
      word = order(word);
      std::memcpy(out + 4 * lane, &word, 4);
    }
}

// Eight codes of four bits, 0 1 2 3 4 5 6 7, to 0 4 1 5 2 6 3 7: those of two steps that share bytes.
uint32_t pair_steps(uint32_t word) {
  uint32_t moved = (word ^ word >> 8) & 0x0000FF00;
  word ^= moved ^ moved << 8;
  moved = (word ^ word >> 4) & 0x00F000F0;
  return word ^ moved ^ moved << 4;
}

// What codes of this width are raised by on their way into a byte.
int lift_of(int bits) { return bits <= 4 ? 0 : 128 - (1 << (bits - 1)); }

}  // namespace

Matrix::Matrix(const MatrixSource& source) {
  *this = laid_out(source);
  over_panels(panels(), [&](int begin, int end) { fill(source, begin, end); });
}

Matrix Matrix::laid_out(const MatrixSource& source) {
  Matrix matrix;
  std::visit([&](const auto& from) { matrix.lay_out(from); }, source);
  return matrix;
}

void Matrix::fill(const MatrixSource& source, int begin, int end) {
  if (const auto* dense = std::get_if<DenseSource>(&source)) {
    for (int p = begin; p < end; p++) repack_panel(*dense, p);
    return;
  }
  std::vector<uint8_t> rows(static_cast<size_t>(kPanelRows) * blocks_ * kBlock);
  for (int p = begin; p < end; p++) repack_panel(std::get<PackedSource>(source), p, rows.data());
}

void Matrix::lay_out(const PackedSource& source) {
  rows_ = source.rows;
  columns_ = source.columns;
  bits_ = source.bits <= 4 ? source.bits : 8;
  blocks_ = (columns_ + kBlock - 1) / kBlock;
  blocks_per_group_ = source.shared_scale || source.group == columns_ ? blocks_ : source.group / kBlock;
  groups_ = (blocks_ + blocks_per_group_ - 1) / blocks_per_group_;
  scale_type_ = source.scale_type;
  zero_type_ = source.zero_type;
  rotated_ = source.rotated;
  table_type_ = source.table_type;
  if (table_type_ == TableType::tensor) std::copy_n(source.table, table_.size(), table_.begin());
  const bool multiple = scale_type_ == ScaleType::multiple;
  zeros_at_ = round_up((multiple ? 1 : groups_) * kPanelRows * scale_bytes(scale_type_));
  codes_at_ =
      zeros_at_ + (table_type_ == TableType::row ? kPanelRows * kTableLevels
                                                 : round_up(groups_ * kPanelRows * (multiple ? 1 : zero_bytes(zero_type_))));
  record_bytes_ = codes_at_ + static_cast<size_t>(blocks_) * code_bytes(bits_);
  data_ = Buffer(panels() * record_bytes_);
}

void Matrix::lay_out(const DenseSource& source) {
  rows_ = source.rows;
  columns_ = source.columns;
  type_ = source.type;
  data_ = Buffer(static_cast<size_t>(panels()) * columns_ * kPanelRows * (type_ == DenseType::fp32 ? 4 : 2));
}

// Padding rows keep codes and scales of zero, never written out.
void Matrix::repack_panel(const PackedSource& source, int panel, uint8_t* codes_of_rows) {
  const size_t stride = static_cast<size_t>(blocks_) * kBlock, row_bytes = (static_cast<size_t>(columns_) * source.bits + 7) / 8;
  const int first = panel * kPanelRows, lanes = std::min(kPanelRows, rows_ - first);
  uint8_t* out = data_.as<uint8_t>() + panel * record_bytes_ + codes_at_;
  for (int lane = 0; lane < lanes; lane++) repack_scales(source, panel, lane);
  const uint8_t* from = source.codes + first * row_bytes;
  if (columns_ % kBlock == 0 && source.bits == 8)
    return turn_words(from, row_bytes, lanes, out, [](uint32_t word) { return word; });
  const bool turned = table_type_ == TableType::row;
  if (columns_ % kBlock == 0 && source.bits == 4 && !turned) return turn_words(from, row_bytes, lanes, out, pair_steps);
  // Codes of 5 to 7 bits move to the middle of a byte, so that their symmetric zero is a byte's.
  const int lift = lift_of(source.bits);
  std::memset(codes_of_rows, 0, kPanelRows * stride);
  for (int lane = 0; lane < lanes; lane++) {
    uint8_t* codes = codes_of_rows + lane * stride;
    unpack_row(from + lane * row_bytes, columns_, source.bits, codes);
    for (int k = 0; lift != 0 && k < columns_; k++) codes[k] = static_cast<uint8_t>(codes[k] + lift);
  }
  const auto store = bits_ == 2 ? store_block<2> : bits_ == 3 ? store_block<3> : bits_ == 4 ? store_block<4> : store_block<8>;
  for (int b = 0; b < blocks_; b++)
    store(codes_of_rows + static_cast<size_t>(b) * kBlock, stride, turned, out + static_cast<size_t>(b) * code_bytes(bits_));
}

void Matrix::repack_scales(const PackedSource& source, int panel, int lane) {
  uint8_t *record = data_.as<uint8_t>() + panel * record_bytes_, *zeros = record + zeros_at_;
  const int row = panel * kPanelRows + lane, lift = lift_of(source.bits);
  const size_t unit = scale_bytes(scale_type_);
  const bool multiple = scale_type_ == ScaleType::multiple;
  const auto copy_scale = [&](size_t from, int to) {
    std::memcpy(record + (static_cast<size_t>(to) * kPanelRows + lane) * unit,
                static_cast<const uint8_t*>(source.scales) + from * unit, unit);
  };
  if (multiple) copy_scale(row, 0);
  if (table_type_ == TableType::row)
    std::memcpy(zeros + (lane % 4 * 4 + lane / 4) * kTableLevels, source.table + static_cast<size_t>(row) * kTableLevels,
                kTableLevels);
  for (int g = 0; g < groups_; g++) {
    const size_t from = source.shared_scale ? 0 : static_cast<size_t>(row) * groups_ + g, to = g * kPanelRows + lane;
    if (!multiple) copy_scale(from, g);
    if (multiple) zeros[to] = static_cast<uint8_t>(source.multiples[from]);
    if (zero_type_ == ZeroType::uint8)
      zeros[to] = static_cast<uint8_t>(static_cast<const uint8_t*>(source.zero_points)[from] + lift);
    if (zero_type_ == ZeroType::fp32)
      reinterpret_cast<float*>(zeros)[to] = static_cast<const float*>(source.zero_points)[from] + static_cast<float>(lift);
  }
}

void Matrix::repack_panel(const DenseSource& source, int panel) {
  const size_t unit = type_ == DenseType::fp32 ? 4 : 2;
  uint8_t* to = data_.as<uint8_t>() + static_cast<size_t>(panel) * columns_ * kPanelRows * unit;
  for (int lane = 0; lane < std::min(kPanelRows, rows_ - panel * kPanelRows); lane++) {
    const auto row = static_cast<size_t>(panel) * kPanelRows + lane;
    const uint8_t* from = static_cast<const uint8_t*>(source.values) + row * columns_ * unit;
    for (int k = 0; k < columns_; k++)
      std::memcpy(to + (static_cast<size_t>(k) * kPanelRows + lane) * unit, from + k * unit, unit);
  }
}

QuantizedPanels Matrix::quantized_panels() const {
  return {.records = data_.as<uint8_t>(),
          .table = table_.data(),
          .table_type = table_type_,
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
    if (rotated_) k.hadamard(out, columns_, rotation_block(columns_), out);
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
