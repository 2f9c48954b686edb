// Fills one row of the dispatch table from one instruction set. Included once by each isa_*.cpp, which is compiled with
// that set's flags; everything here is in unnamed namespaces so that no wide code leaks into the portable part.
#pragma once

#include "bitwright/kernels.h"
#include "cached.h"
#include "compensate.h"
#include "grid.h"
#include "quantized_matmul.h"
#include "quantized_rows.h"
#include "quantized_vector.h"
#include "vector_math.h"

namespace {

template <class Isa>
constexpr bitwright::Kernels make_table() {
  return {
      .name = Isa::kName,
      .tile = Isa::kTile,
      .few_of_bytes = bitwright::kFewRows,
      .few_of_multiples = bitwright::kFewRows,
      .packed = false,
      .attention = nullptr,
      .dense_panel = dense_panel<Isa>,
      .cached_panels = cached_panels<Isa>,
      .cached_row = cached_row<Isa>,
      .dense_matmul = dense_matmul<Isa>,
      .quantized_vector = quantized_vector<Isa>,
      .quantized_matmul = quantized_matmul<Isa>,
      .dequantize_panel = dequantize_panel<Isa>,
      .quantize_row = quantize_row<Isa>,
      .quantize_row_wide = quantize_row_wide<Isa>,
      .hadamard = hadamard<Isa>,
      .rms_norm = rms_norm<Isa>,
      .gated_silu = gated_silu<Isa>,
      .gated_gelu = gated_gelu<Isa>,
      .softcap = softcap<Isa>,
      .exp_shifted = exp_shifted<Isa>,
      .sum_exp = sum_exp<Isa>,
      .maximum = maximum<Isa>,
      .to_fp16 = to_fp16<Isa>,
      .rotate_pairs = rotate_pairs<Isa>,
      .scale = scale<Isa>,
      .add_scaled = add_scaled<Isa>,
      .expected_gap = expected_gap<Isa>,
      .encode_group = encode_group<Isa>,
      .squared_error = squared_error<Isa>,
      .table_error = table_error<Isa>,
      .scale_sums = scale_sums<Isa>,
      .compensate_panel = compensate_panel<Isa>,
      .descend_panel = descend_panel<Isa>,
  };
}

}  // namespace
