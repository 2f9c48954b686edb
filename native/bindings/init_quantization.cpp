#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <optional>
#include <string>
#include <tuple>

#include "arrays.h"
#include "bitwright/histogram.h"
#include "bitwright/quantization.h"
#include "bitwright/tables.h"
#include "init.h"

namespace nb = nanobind;
using bitwright::ScaleRounding;
using namespace nb::literals;

namespace {

using Bytes2 = Array<uint8_t, 2>;
using Floats1 = Array<float, 1>;
using Floats2 = Array<float, 2>;

auto pack_codes(Bytes2 codes, int bits) {
  require(bits >= 2 && bits <= 8, "bits must be 2 to 8");
  const size_t rows = codes.shape(0), columns = codes.shape(1);
  auto packed = make_array<uint8_t>({rows, (columns * bits + 7) / 8});
  nb::gil_scoped_release release;
  bitwright::pack_codes(codes.data(), rows, columns, bits, packed.data());
  return packed;
}

auto unpack_codes(Bytes2 packed, size_t columns, int bits) {
  require(bits >= 2 && bits <= 8, "bits must be 2 to 8");
  require(packed.shape(1) == (columns * bits + 7) / 8, "packed rows have the wrong length");
  auto codes = make_array<uint8_t>({packed.shape(0), columns});
  nb::gil_scoped_release release;
  bitwright::unpack_codes(packed.data(), packed.shape(0), columns, bits, codes.data());
  return codes;
}

bitwright::Grids grids_of(const Floats2& x, const Floats1& scale, const Floats1& zero_point, int low, int high) {
  require(scale.shape(0) == x.shape(0) && zero_point.shape(0) == x.shape(0), "one scale and zero point for each group");
  return {scale.data(), zero_point.data(), low, high};
}

auto encode_groups(Floats2 x, Floats1 scale, Floats1 zero_point, int low, int high) {
  const auto grids = grids_of(x, scale, zero_point, low, high);
  auto codes = make_array<uint8_t>({x.shape(0), x.shape(1)});
  nb::gil_scoped_release release;
  bitwright::encode_groups(x.data(), x.shape(0), x.shape(1), grids, codes.data());
  return codes;
}

auto squared_error(Floats2 x, Floats1 scale, Floats1 zero_point, int low, int high) {
  const auto grids = grids_of(x, scale, zero_point, low, high);
  auto error = make_array<float>({x.shape(0)});
  nb::gil_scoped_release release;
  bitwright::squared_error(x.data(), x.shape(0), x.shape(1), grids, error.data());
  return error;
}

auto refit_scale(Floats2 x, Floats1 scale, Floats1 zero_point, int low, int high) {
  const auto grids = grids_of(x, scale, zero_point, low, high);
  auto refit = make_array<float>({x.shape(0)});
  nb::gil_scoped_release release;
  bitwright::refit_scale(x.data(), x.shape(0), x.shape(1), grids, refit.data());
  return refit;
}

ScaleRounding rounding_of(const std::string& scale_type) {
  if (scale_type == "fp32") return ScaleRounding::fp32;
  if (scale_type == "fp16") return ScaleRounding::fp16;
  if (scale_type == "bf16") return ScaleRounding::bf16;
  require(scale_type == "pow2", "unknown scale type " + scale_type);
  return ScaleRounding::power_of_two;
}

auto fit_mse(Floats2 x, Floats1 shrink, int refits, int low, int high, bool affine, const std::string& scale_type) {
  require(x.shape(1) > 0, "groups are empty");
  const bitwright::MseSearch search{
      low, high, affine, rounding_of(scale_type), shrink.data(), static_cast<int>(shrink.shape(0)), refits};
  auto scale = make_array<float>({x.shape(0)}), zero_point = make_array<float>({x.shape(0)});
  {
    nb::gil_scoped_release release;
    bitwright::fit_mse(x.data(), x.shape(0), x.shape(1), search, scale.data(), zero_point.data());
  }
  return std::make_tuple(scale, zero_point);
}

// Thresholds (tables, n - 1), levels and codes (tables, n).
bitwright::Tables tables_of(const Floats2& x, const Floats1& scale, const Floats2& thresholds, const Floats2& levels,
                            const Bytes2& codes) {
  const size_t count = levels.shape(0), n = levels.shape(1);
  require(scale.shape(0) == x.shape(0), "one scale for each group");
  require(count > 0 && n > 0 && x.shape(0) % count == 0, "each table serves an equal share of the groups");
  require(thresholds.shape(0) == count && thresholds.shape(1) == n - 1, "one threshold less than levels");
  require(codes.shape(0) == count && codes.shape(1) == n, "one code for each level");
  return {thresholds.data(), levels.data(), codes.data(), count, static_cast<int>(n)};
}

auto encode_tables(Floats2 x, Floats1 scale, Floats2 thresholds, Floats2 levels, Bytes2 codes_of) {
  const auto tables = tables_of(x, scale, thresholds, levels, codes_of);
  auto codes = make_array<uint8_t>({x.shape(0), x.shape(1)});
  nb::gil_scoped_release release;
  bitwright::encode_tables(x.data(), x.shape(0), x.shape(1), scale.data(), tables, codes.data());
  return codes;
}

auto table_error(Floats2 x, Floats1 scale, Floats2 thresholds, Floats2 levels, Bytes2 codes_of, std::optional<Floats1> weights) {
  const auto tables = tables_of(x, scale, thresholds, levels, codes_of);
  bitwright::Importance importance;
  if (weights) {
    require(x.shape(1) > 0 && weights->shape(0) > 0 && weights->shape(0) % x.shape(1) == 0, "one weight for each column");
    importance = {weights->data(), weights->shape(0) / x.shape(1)};
  }
  auto error = make_array<float>({x.shape(0)});
  nb::gil_scoped_release release;
  bitwright::table_error(x.data(), x.shape(0), x.shape(1), scale.data(), tables, importance, error.data());
  return error;
}

// Counts (bins,), and the largest magnitude, NaN or infinite where a value is.
auto count_in_bins(Floats1 x, int exponent, int bins) {
  require(bins >= 2 && bins <= 1 << 20 && bins % 2 == 0, "an even number of bins, up to 2^20");
  require(exponent >= -100 && exponent <= 128, "the range must be 2^-100 to 2^128");
  auto counts = make_array<int64_t>({static_cast<size_t>(bins)});
  std::fill_n(counts.data(), bins, int64_t{0});
  float largest;
  {
    nb::gil_scoped_release release;
    largest = bitwright::count_in_bins(x.data(), x.shape(0), exponent, bins, counts.data());
  }
  return std::make_tuple(counts, largest);
}

}  // namespace

void init_quantization(nb::module_& m) {
  m.def("pack_codes", &pack_codes, "codes"_a, "bits"_a);
  m.def("unpack_codes", &unpack_codes, "packed"_a, "columns"_a, "bits"_a);
  m.def("encode_groups", &encode_groups, "groups"_a, "scale"_a, "zero_point"_a, "low"_a, "high"_a);
  m.def("squared_error", &squared_error, "groups"_a, "scale"_a, "zero_point"_a, "low"_a, "high"_a);
  m.def("encode_tables", &encode_tables, "groups"_a, "scale"_a, "thresholds"_a, "levels"_a, "codes"_a);
  m.def("table_error", &table_error, "groups"_a, "scale"_a, "thresholds"_a, "levels"_a, "codes"_a, "importance"_a.none());
  m.def("count_in_bins", &count_in_bins, "values"_a, "exponent"_a, "bins"_a);
  m.def("fit_mse", &fit_mse, "groups"_a, "shrink"_a, "refits"_a, "low"_a, "high"_a, "affine"_a, "scale_type"_a);
  m.def("refit_scale", &refit_scale, "groups"_a, "scale"_a, "zero_point"_a, "low"_a, "high"_a);
}
