#include "products.h"

#include <algorithm>
#include <numeric>

namespace bitwright {

QuantizedRows Session::quantized_rows(const RowForm& form, int count, int columns, bool whole, bool apart) const {
  const int lines = count * width();
  const bool packed = !apart && kernels_.packed;
  return {lines,
          (columns + kBlock - 1) / kBlock,
          apart    ? 1
          : packed ? kPackedRows
                   : kernels_.tile,
          whole,
          packed,
          form.codes.as<int32_t>(),
          form.scales.as<float>(),
          form.negated_sums.as<int32_t>(),
          form.negated_totals.as<int32_t>()};
}

Session::Wanted Session::wanted(std::span<const Product> products, int count) const {
  Wanted forms;
  int few = kFewRows;
  for (const Product& product : products)
    for (const Matrix* matrix : {product.matrix, product.times}) {
      if (matrix == nullptr) continue;
      few = std::min(few, few_rows(*matrix));
      if (matrix->rotated()) {
        (integer(*matrix) ? forms.rotated_integer : forms.rotated_dense) = true;
        forms.whole = whole(*matrix);
      } else
        (integer(*matrix) ? forms.integer : forms.dense) = true;
    }
  forms.apart = count * width() <= few;
  return forms;
}

int Session::rows_of_range(const Wanted& forms) const {
  const int dense = forms.dense || forms.rotated_dense ? kernels_.tile : 1;
  const int packed = kernels_.packed ? 2 * kPackedRows : kernels_.tile;  // two tiles go through a matrix unit together
  return std::lcm(dense, forms.integer || forms.rotated_integer ? packed : 1);
}

void Session::place_row(Scratch& scratch, RowBuffer& rows, const Wanted& forms, int row, int count, int columns, const float* x) {
  if (forms.dense) place_dense(rows.plain, row, count, columns, x);
  if (forms.integer) place_integer(rows.plain, forms, row, count, columns, false, x);
  if (!forms.rotated_dense && !forms.rotated_integer) return;
  float* rotated = scratch.rotated.data();
  kernels_.hadamard(x, columns, rotation_block(columns), rotated);
  if (forms.rotated_dense) place_dense(rows.rotated, row, count, columns, rotated);
  if (forms.rotated_integer) place_integer(rows.rotated, forms, row, count, columns, forms.whole, rotated);
}

void Session::place_dense(RowForm& form, int row, int count, int columns, const float* x) {
  const int tile = count == 1 ? 1 : kernels_.tile;
  float* to = form.dense.as<float>() + static_cast<size_t>(row / tile) * tile * columns + row % tile;
  for (int k = 0; k < columns; k++) to[static_cast<size_t>(k) * tile] = x[k];
}

void Session::place_integer(RowForm& form, const Wanted& forms, int row, int count, int columns, bool whole, const float* x) {
  const QuantizedRows rows = quantized_rows(form, count, columns, whole, forms.apart);
  if (width() == 2)
    kernels_.quantize_row_wide(x, columns, whole, rows.target(2 * row), rows.target(2 * row + 1));
  else
    kernels_.quantize_row(x, columns, whole, rows.target(row));
}

void Session::multiply_range(Scratch& scratch, const RowBuffer& rows, RowRange at, const Product& product, PanelRange range) {
  if (range.begin >= range.end || at.count <= 0) return;
  float* out = product.out + static_cast<size_t>(at.first) * product.stride;
  if (product.times != nullptr) return multiply_gated(scratch, rows, at, product, range, out);
  const int begin = range.begin * kPanelRows, end = std::min(range.end * kPanelRows, product.matrix->rows());
  multiply_panels(scratch, rows, at, *product.matrix, range, {out + begin, product.stride, product.accumulate});
  if (product.bias == nullptr || product.bias->empty()) return;
  for (int token = 0; token < at.count; token++)
    for (int row = begin; row < end; row++) out[static_cast<size_t>(token) * product.stride + row] += (*product.bias)[row];
}

void Session::multiply_panels(Scratch& scratch, const RowBuffer& rows, RowRange at, const Matrix& matrix, PanelRange range,
                              Output out) {
  const RowForm& form = rows.form(matrix);
  const float* dense = form.dense.as<float>() + static_cast<size_t>(at.first) * matrix.columns();
  const QuantizedRows x =
      quantized_rows(form, at.of, matrix.columns(), whole(matrix), at.apart).part(at.first * width(), at.count * width());
  if (!matrix.quantized())
    kernels_.dense_matmul(matrix.dense_panels(), dense, at.count, range, out);
  else if (!integer(matrix))
    multiply_decoded(scratch, dense, at.count, matrix, range, out);
  else if (width() == 2)
    multiply_wide(scratch, x, matrix, range, out);
  else if (at.of == 1)
    kernels_.quantized_vector(matrix.quantized_panels(), x, range, out);
  else
    kernels_.quantized_matmul(matrix.quantized_panels(), x, range, out, scratch.codes.data());
}

// A few panels of the gate and of what it opens at a time: their products stay in the cache, and only what the gate lets
// through is written.
void Session::multiply_gated(Scratch& scratch, const RowBuffer& rows, RowRange at, const Product& product, PanelRange range,
                             float* out) {
  constexpr int kWidth = kGatedPanels * kPanelRows;
  float *gate = scratch.gated.data(), *up = gate + static_cast<size_t>(at.count) * kWidth;
  const auto activate = model_->gelu ? kernels_.gated_gelu : kernels_.gated_silu;
  for (int panel = range.begin; panel < range.end; panel += kGatedPanels) {
    const PanelRange part{panel, std::min(panel + kGatedPanels, range.end)};
    multiply_panels(scratch, rows, at, *product.matrix, part, {gate, kWidth, false});
    multiply_panels(scratch, rows, at, *product.times, part, {up, kWidth, false});
    const int begin = panel * kPanelRows, lanes = std::min(part.end * kPanelRows, product.matrix->rows()) - begin;
    for (int row = 0; row < at.count; row++)
      activate(gate + row * kWidth, up + row * kWidth, lanes, out + static_cast<size_t>(row) * product.stride + begin);
  }
}

// Float activations: each panel is decoded to floats, then multiplied as a dense one.
void Session::multiply_decoded(Scratch& scratch, const float* rows, int count, const Matrix& matrix, PanelRange range,
                               Output out) {
  for (int panel = range.begin; panel < range.end; panel++, out.values += kPanelRows) {
    kernels_.dequantize_panel(matrix.quantized_panels(), panel, scratch.panel.data());
    const int lanes = std::min(kPanelRows, matrix.rows() - panel * kPanelRows);
    kernels_.dense_matmul({scratch.panel.data(), DenseType::fp32, lanes, matrix.columns()}, rows, count, {0, 1}, out);
  }
}

// Wide activations: two rows of int8 a token, whose products are added.
void Session::multiply_wide(Scratch& scratch, const QuantizedRows& rows, const Matrix& matrix, PanelRange range, Output out) {
  float* pairs = scratch.pairs.data();
  for (int panel = range.begin; panel < range.end; panel++, out.values += kPanelRows) {
    const int lanes = std::min(kPanelRows, matrix.rows() - panel * kPanelRows);
    kernels_.quantized_matmul(matrix.quantized_panels(), rows, {panel, panel + 1}, Output{pairs, kPanelRows, false},
                              scratch.codes.data());
    for (int token = 0; 2 * token < rows.rows; token++) {
      float* to = out.values + token * out.stride;
      const float *first = pairs + static_cast<size_t>(2 * token) * kPanelRows, *second = first + kPanelRows;
      for (int lane = 0; lane < lanes; lane++) to[lane] = (out.accumulate ? to[lane] : 0.0f) + first[lane] + second[lane];
    }
  }
}

}  // namespace bitwright
