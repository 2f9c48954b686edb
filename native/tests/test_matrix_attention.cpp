// Attention on a matrix unit: rows as bf16, their softmax, and products with panels in half precision, against plain loops;
// for the machine's own unit and for its twin written out in loops. A row's products are those it has alone.
#include <algorithm>
#include <cstring>
#include <limits>

#include "bitwright/kernels.h"
#include "check.h"
#include "half.h"
#include "simd_scalar.h"
#include "tiled_attention.h"

using namespace bitwright;

namespace {

float from_bf16(uint16_t code) {
  const uint32_t bits = static_cast<uint32_t>(code) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// Entry (row, column) of packed rows.
float entry(const std::vector<uint16_t>& rows, int columns, int row, int column) {
  const size_t steps = (columns + kMatrixStep - 1) / kMatrixStep;
  const size_t tile = row / kPackedRows * steps + column / kMatrixStep;
  return from_bf16(rows[tile * kPackedRows * kMatrixStep + row % kPackedRows * kMatrixStep + column % kMatrixStep]);
}

constexpr float kHuge = std::numeric_limits<float>::infinity();
const int kColumns[] = {8, 31, 32, 64, 80, 256};

void check_rows(const MatrixAttention& unit) {
  for (const int columns : kColumns) {
    std::vector<float> x = normal(256, columns, 3.0f);
    std::vector<uint16_t> rows(matrix_entries(20, columns), 0x7FC0), weights(rows);
    const int low = columns / 3, high = columns - columns / 5;
    const float peak = *std::max_element(x.begin() + low, x.begin() + high);
    unit.row(x.data(), columns, 17, rows.data());
    SoftmaxRow seen[2] = {{5, 5, 0, 0}, {low, high, 0, 0}};
    std::vector<float> scores(2 * kAttentionSpan, kHuge);  // what is outside a row's entries must not matter
    std::copy(x.begin() + low, x.begin() + high, scores.begin() + kAttentionSpan + low);
    unit.softmax(scores.data(), columns, seen, 2, weights.data());
    double sum = 0;
    bool close = true;
    for (int c = 0; c < columns; c++) {
      close &= std::fabs(entry(rows, columns, 17, c) - x[c]) <= std::fabs(x[c]) / 256;
      const double weight = c >= low && c < high ? std::exp(static_cast<double>(x[c]) - peak) : 0;
      close &= std::fabs(entry(weights, columns, 1, c) - weight) <= weight / 250;
      sum += weight;
    }
    for (int c = columns; c % kMatrixStep != 0; c++)
      close &= entry(rows, columns, 17, c) == 0 && entry(weights, columns, 1, c) == 0;
    for (int c = 0; c < columns; c++) close &= entry(weights, columns, 0, c) == 0;
    CHECK(close);
    CHECK(seen[1].peak == peak && std::fabs(seen[1].total - sum) < 2e-4 * sum);
    CHECK(seen[0].peak == -kHuge && seen[0].total == 0);
  }
}

void check_panels(const MatrixAttention& unit) {
  constexpr int kPanels = 3, kWide = kPanels * kPanelRows;
  const Kernels& scalar = *kernels_named("scalar");
  for (const int columns : kColumns) {
    const size_t stride = static_cast<size_t>(columns) * kPanelRows + 32;
    const auto values = normal(kPanels * stride, 3);
    std::vector<uint16_t> half(values.size());
    scalar.to_fp16(values.data(), static_cast<int>(values.size()), half.data());
    const HalfPanels panels{half.data(), stride, columns, kPanels};
    std::vector<uint16_t> turned(matrix_entries(kWide, columns));
    unit.turn(panels, turned.data());
    const TurnedPanels pairs{turned.data(), matrix_entries(kPanelRows, columns), kPanels};
    const int steps = matrix_steps(columns);
    for (const int count : {1, 3, 16, 17, 40, 96}) {
      const auto x = normal(static_cast<size_t>(count) * columns, count);
      const int padded = (count + kPackedRows - 1) / kPackedRows * kPackedRows;
      std::vector<uint16_t> rows(matrix_entries(count, columns)), alone(matrix_entries(1, columns));
      std::vector<float> out(static_cast<size_t>(padded) * kWide), single(kPackedRows * kWide);
      for (int row = 0; row < count; row++) unit.row(x.data() + static_cast<size_t>(row) * columns, columns, row, rows.data());
      unit.begin(count);
      unit.matmul(pairs, rows.data(), count, steps, {out.data(), kWide, false});
      unit.end();
      std::vector<float> plain;
      for (int row = 0; row < count; row++)
        for (int lane = 0; lane < kWide; lane++) {
          double sum = 0;
          for (int c = 0; c < columns; c++) {
            const float value = values[lane / kPanelRows * stride + c * kPanelRows + lane % kPanelRows];
            sum +=
                entry(rows, columns, row, c) * static_cast<double>(from_bf16(Scalar::bf16(half_to_float(float_to_half(value)))));
          }
          plain.push_back(static_cast<float>(sum));
        }
      CHECK(distance(plain, {out.begin(), out.begin() + count * kWide}) < 1e-5f);
      unit.row(x.data() + static_cast<size_t>(count - 1) * columns, columns, 0, alone.data());
      unit.begin(1);
      unit.matmul(pairs, alone.data(), 1, steps, {single.data(), kWide, false});
      unit.end();
      CHECK(std::equal(single.begin(), single.begin() + kWide, out.begin() + (count - 1) * kWide));
    }
  }
}

constexpr MatrixAttention kEmulated = {matrix_row<Scalar>,         softmax_rows<Scalar>, turn_panels<Scalar>,
                                       begin_tiles<EmulatedTiles>, EmulatedTiles::end,   turned_matmul<EmulatedTiles>};

}  // namespace

std::vector<Case> matrix_attention_cases() {
  std::vector<Case> cases = {{"emulated matrix unit rows", [] { check_rows(kEmulated); }},
                             {"emulated matrix unit attention", [] { check_panels(kEmulated); }}};
  const char* names[8];
  const int count = supported_kernels(names, 8);
  for (int i = 0; i < count; i++) {
    const MatrixAttention* unit = kernels_named(names[i])->attention;
    if (unit == nullptr) continue;
    cases.push_back({std::string(names[i]) + " rows of attention", [unit] { check_rows(*unit); }});
    cases.push_back({std::string(names[i]) + " attention", [unit] { check_panels(*unit); }});
  }
  return cases;
}
