// Weights against one uniform grid, or a table of few levels. Of a grid level = clip(rint(x / scale) + zero_point, low, high),
// code = level - low.
#pragma once

#include "bitwright/kernels.h"
#include "vector_math.h"

namespace {

template <class Isa>
struct Grid {
  typename Isa::F scale, zero_point, low, high;
  Grid(float scale_, float zero_point_, int low_, int high_)
      : scale(Isa::set1(scale_)),
        zero_point(Isa::set1(zero_point_)),
        low(Isa::set1(static_cast<float>(low_))),
        high(Isa::set1(static_cast<float>(high_))) {}
  typename Isa::F level(typename Isa::F x) const {
    return Isa::max(Isa::min(Isa::add(Isa::round(Isa::div(x, scale)), zero_point), high), low);
  }
};

template <class Isa>
void encode_group(const float* x, int n, float scale, float zero_point, int low, int high, uint8_t* codes) {
  const Grid<Isa> grid(scale, zero_point, low, high);
  for_each_vector<Isa>(x, n, 0.0f, [&](int i, auto v, int count) {
    uint8_t lanes[kPanelRows];
    Isa::store_uint8(lanes, Isa::sub(grid.level(v), grid.low));
    std::memcpy(codes + i, lanes, count);
  });
}

template <class Isa>
float squared_error(const float* x, int n, float scale, float zero_point, int low, int high) {
  const Grid<Isa> grid(scale, zero_point, low, high);
  auto total = Isa::set1(0.0f);
  for_each_vector<Isa>(x, n, 0.0f, [&](int, auto v, int) {
    const auto error = Isa::sub(Isa::mul(Isa::sub(grid.level(v), grid.zero_point), grid.scale), v);
    total = Isa::fma(error, error, total);
  });
  return Isa::sum(total);
}

// Of the nearest of few levels; each weight's error counts `importance` times, where there is any.
template <class Isa>
float table_error(const float* x, const float* importance, int n, float scale, const float* levels, int count) {
  auto total = Isa::set1(0.0f);
  for_each_vector<Isa>(x, n, 0.0f, [&](int i, auto v, int lanes) {
    auto error = Isa::abs(Isa::sub(v, Isa::set1(levels[0] * scale)));
    for (int k = 1; k < count; k++) error = Isa::min(error, Isa::abs(Isa::sub(v, Isa::set1(levels[k] * scale))));
    if (lanes < kPanelRows) error = keep_lanes<Isa>(error, lanes);
    const auto squared = Isa::mul(error, error);
    if (importance == nullptr)
      total = Isa::add(total, squared);
    else
      total =
          Isa::fma(squared, lanes < kPanelRows ? load_tail<Isa>(importance + i, lanes, 0.0f) : Isa::load(importance + i), total);
  });
  return Isa::sum(total);
}

template <class Isa>
void scale_sums(const float* x, int n, float scale, float zero_point, int low, int high, float* xq, float* qq) {
  const Grid<Isa> grid(scale, zero_point, low, high);
  auto products = Isa::set1(0.0f), squares = Isa::set1(0.0f);
  for_each_vector<Isa>(x, n, 0.0f, [&](int, auto v, int) {
    const auto q = Isa::sub(grid.level(v), grid.zero_point);
    products = Isa::fma(v, q, products);
    squares = Isa::fma(q, q, squares);
  });
  *xq = Isa::sum(products);
  *qq = Isa::sum(squares);
}

}  // namespace
