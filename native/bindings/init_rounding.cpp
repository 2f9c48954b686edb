#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>

#include <optional>
#include <tuple>

#include "arrays.h"
#include "bitwright/compensate.h"
#include "bitwright/gram.h"
#include "init.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Floats2 = Array<float, 2>;
using Indices = Array<int32_t, 1>;
using SortedTables = std::optional<std::tuple<Floats2, Floats2, Array<uint8_t, 2>>>;  // thresholds, levels and codes

// What `tables` holds, looked at after the check that rows and groups have one table, one each, or one for both.
struct CheckedTables {
  bitwright::Tables of{};
  CheckedTables(const SortedTables& tables, bitwright::RowGrids& grids, size_t rows) {
    if (!tables) return;
    const auto& [thresholds, levels, codes] = *tables;
    const size_t count = levels.shape(0), n = levels.shape(1);
    require(n > 0 && thresholds.shape(0) == count && thresholds.shape(1) == n - 1, "one threshold less than levels");
    require(codes.shape(0) == count && codes.shape(1) == n, "one code for each level");
    require(count == 1 || count == rows || count == rows * grids.groups, "one table in all, for each row, or for each group");
    of = {thresholds.data(), levels.data(), codes.data(), count, static_cast<int>(n)};
    grids.tables = &of;
  }
};

bitwright::RowGrids grids_of(const Floats2& weights, const Floats2& scales, const Floats2& zero_points, const Indices& group_of,
                             int low, int high) {
  const size_t rows = weights.shape(0), columns = weights.shape(1), groups = scales.shape(1);
  require(rows > 0 && columns > 0 && scales.shape(0) == rows && zero_points.shape(0) == rows && zero_points.shape(1) == groups &&
              group_of.shape(0) == columns,
          "one scale and zero point for each row and group");
  for (size_t j = 0; j < columns; j++)
    require(group_of.data()[j] >= 0 && static_cast<size_t>(group_of.data()[j]) < groups, "a column's group does not exist");
  return {scales.data(), zero_points.data(), group_of.data(), groups, low, high};
}

void require_square(const Floats2& matrix, size_t n) {
  require(matrix.shape(0) == n && matrix.shape(1) == n, "the matrix must be (columns, columns)");
}

auto compensate(Floats2 weights, Floats2 scales, Floats2 zero_points, Indices group_of, int low, int high, Floats2 factor,
                std::optional<Floats2> drift, SortedTables tables) {
  auto grids = grids_of(weights, scales, zero_points, group_of, low, high);
  const CheckedTables checked(tables, grids, weights.shape(0));
  require_square(factor, weights.shape(1));
  if (drift) require_square(*drift, weights.shape(1));
  auto codes = make_array<uint8_t>({weights.shape(0), weights.shape(1)});
  nb::gil_scoped_release release;
  bitwright::compensate(weights.data(), weights.shape(0), weights.shape(1), grids, factor.data(), drift ? drift->data() : nullptr,
                        codes.data());
  return codes;
}

auto descend(Floats2 values, Floats2 residuals, Floats2 scales, Floats2 zero_points, Indices group_of, int low, int high,
             Floats2 gram, int sweeps, SortedTables tables) {
  auto grids = grids_of(values, scales, zero_points, group_of, low, high);
  const CheckedTables checked(tables, grids, values.shape(0));
  require(residuals.shape(0) == values.shape(0) && residuals.shape(1) == values.shape(1), "one residual for each value");
  require_square(gram, values.shape(1));
  require(sweeps > 0, "at least one sweep");
  auto codes = make_array<uint8_t>({values.shape(0), values.shape(1)});
  nb::gil_scoped_release release;
  bitwright::descend(values.data(), residuals.data(), values.shape(0), values.shape(1), grids, gram.data(), sweeps, codes.data());
  return codes;
}

auto bfloat16_gram(Array<uint16_t, 2> x) {
  require(bitwright::has_bfloat16_tiles(), "this processor has no AMX-BF16, or BITWRIGHT_ISA forbids it");
  auto gram = make_array<float>({x.shape(1), x.shape(1)});
  nb::gil_scoped_release release;
  bitwright::bfloat16_gram(x.data(), x.shape(0), x.shape(1), gram.data());
  return gram;
}

}  // namespace

void init_rounding(nb::module_& m) {
  m.def("has_bfloat16_tiles", &bitwright::has_bfloat16_tiles);
  m.def("bfloat16_gram", &bfloat16_gram, "x"_a);
  m.def("compensate", &compensate, "weights"_a, "scales"_a, "zero_points"_a, "group_of"_a, "low"_a, "high"_a, "factor"_a,
        "drift"_a.none(), "tables"_a.none() = nb::none());
  m.def("descend", &descend, "values"_a, "residuals"_a, "scales"_a, "zero_points"_a, "group_of"_a, "low"_a, "high"_a, "gram"_a,
        "sweeps"_a, "tables"_a.none() = nb::none());
}
