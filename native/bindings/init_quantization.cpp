#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <string>
#include <tuple>

#include "arrays.h"
#include "bitwright/quantization.h"
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

}  // namespace

void init_quantization(nb::module_& m) {
  m.def("pack_codes", &pack_codes, "codes"_a, "bits"_a);
  m.def("unpack_codes", &unpack_codes, "packed"_a, "columns"_a, "bits"_a);
  m.def("encode_groups", &encode_groups, "groups"_a, "scale"_a, "zero_point"_a, "low"_a, "high"_a);
  m.def("squared_error", &squared_error, "groups"_a, "scale"_a, "zero_point"_a, "low"_a, "high"_a);
  m.def("fit_mse", &fit_mse, "groups"_a, "shrink"_a, "refits"_a, "low"_a, "high"_a, "affine"_a, "scale_type"_a);
  m.def("refit_scale", &refit_scale, "groups"_a, "scale"_a, "zero_point"_a, "low"_a, "high"_a);
}
