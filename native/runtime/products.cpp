#include "products.h"

namespace bitwright {

QuantizedRows Session::quantized_rows(const RowBuffer& rows, int count, int columns) const {
  const int lines = count * width();
  return {lines,
          (columns + kBlock - 1) / kBlock,
          lines == 1 ? 1 : kernels_.tile,
          rows.codes.as<int32_t>(),
          rows.scales.as<float>(),
          rows.negated_sums.as<float>()};
}

void Session::place_dense(RowBuffer& rows, int row, int count, int columns, const float* x) {
  const int tile = count == 1 ? 1 : kernels_.tile;
  float* to = rows.dense.as<float>() + static_cast<size_t>(row / tile) * tile * columns + row % tile;
  for (int k = 0; k < columns; k++) to[static_cast<size_t>(k) * tile] = x[k];
}

void Session::place_integer(RowBuffer& rows, int row, int count, int columns, const float* x) {
  const QuantizedRows view = quantized_rows(rows, count, columns);
  const int line = row * width(), tile = view.tile;
  const size_t base = static_cast<size_t>(line / tile) * tile * view.blocks + line % tile;
  const size_t code_base = static_cast<size_t>(line / tile) * tile * view.blocks * (kBlock / 4) + line % tile;
  const auto quantize = width() == 2 ? kernels_.quantize_row_wide : kernels_.quantize_row;
  quantize(x, columns, tile, rows.codes.as<int32_t>() + code_base, rows.scales.as<float>() + base,
           rows.negated_sums.as<float>() + base);
}

void Session::multiply_range(Scratch& scratch, const RowBuffer& rows, int count, const Product& product, PanelRange range) {
  if (range.begin >= range.end) return;
  const Matrix& matrix = *product.matrix;
  const Output out{product.out + static_cast<size_t>(range.begin) * kPanelRows, product.stride, product.accumulate};
  if (!matrix.quantized()) {
    kernels_.dense_matmul(matrix.dense_panels(), rows.dense.as<float>(), count, range, out);
  } else if (!integer(matrix)) {
    multiply_decoded(scratch, rows, count, matrix, range, out);
  } else if (width() == 2) {
    multiply_wide(scratch, quantized_rows(rows, count, matrix.columns()), matrix, range, out);
  } else if (count == 1) {
    kernels_.quantized_vector(matrix.quantized_panels(), quantized_rows(rows, 1, matrix.columns()), range, out);
  } else {
    kernels_.quantized_matmul(matrix.quantized_panels(), quantized_rows(rows, count, matrix.columns()), range, out,
                              scratch.codes.data());
  }
  if (product.bias == nullptr || product.bias->empty()) return;
  const int begin = range.begin * kPanelRows, end = std::min(range.end * kPanelRows, matrix.rows());
  for (int token = 0; token < count; token++)
    for (int row = begin; row < end; row++)
      product.out[static_cast<size_t>(token) * product.stride + row] += (*product.bias)[row];
}

// Float activations: each panel is decoded to floats, then multiplied as a dense one.
void Session::multiply_decoded(Scratch& scratch, const RowBuffer& rows, int count, const Matrix& matrix, PanelRange range,
                               Output out) {
  for (int panel = range.begin; panel < range.end; panel++, out.values += kPanelRows) {
    kernels_.dequantize_panel(matrix.quantized_panels(), panel, scratch.panel.data());
    const int lanes = std::min(kPanelRows, matrix.rows() - panel * kPanelRows);
    kernels_.dense_matmul({scratch.panel.data(), DenseType::fp32, lanes, matrix.columns()}, rows.dense.as<float>(), count, {0, 1},
                          out);
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
