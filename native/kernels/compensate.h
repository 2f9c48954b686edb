// Error-compensating rounding of 16 rows of weights side by side, one vector lane a row.
//
// Columns come in the order of rounding. Every operation is a plain product, sum or quotient in float32, in the order of
// the slow twins in src/bitwright/rounding, so that codes are equal bit for bit.
#pragma once

#include <algorithm>

#include "bitwright/kernels.h"

namespace {

using bitwright::kPanelRows;
using bitwright::RoundingPanel;
using bitwright::RoundingTables;

// Places among up to so many levels are counted, among more they are searched for by halves.
constexpr int kCountedLevels = 16;

// For each lane, how many of its thresholds are below its value.
inline void count_below(const float* values, const float* thresholds, int count, int32_t* below) {
  std::fill(below, below + kPanelRows, 0);
  if (count < kCountedLevels) {
    for (int k = 0; k < count; k++)
      for (int lane = 0; lane < kPanelRows; lane++) below[lane] += values[lane] > thresholds[k * kPanelRows + lane];
    return;
  }
  for (int lane = 0; lane < kPanelRows; lane++)
    for (int left = count; left > 0;) {
      const int half = left / 2, middle = below[lane] + half;
      const bool above = values[lane] > thresholds[middle * kPanelRows + lane];
      below[lane] = above ? middle + 1 : below[lane];
      left = above ? left - half - 1 : half;
    }
}

// The level of 16 weights on the grids of column `column` (of a table, its code), and the weights that those stand for.
template <class Isa>
struct Rounded {
  typename Isa::F level, value;
  Rounded(const RoundingPanel& panel, int column, typename Isa::F w) {
    const size_t group = static_cast<size_t>(panel.group_of[column]);
    const auto scale = Isa::load(panel.scales + group * kPanelRows);
    const auto scaled = Isa::div(w, scale);
    if (panel.tables.levels > 0) {
      look_up(panel.tables, panel.tables.by_group ? group : 0, scaled);
      value = Isa::mul(value, scale);
      return;
    }
    const auto zero_point = Isa::load(panel.zero_points + group * kPanelRows);
    const auto low = Isa::set1(static_cast<float>(panel.low)), high = Isa::set1(static_cast<float>(panel.high));
    level = Isa::max(Isa::min(Isa::add(Isa::round(scaled), zero_point), high), low);
    value = Isa::mul(Isa::sub(level, zero_point), scale);
  }

 private:
  void look_up(const RoundingTables& tables, size_t table, typename Isa::F scaled) {
    float lanes[kPanelRows], values[kPanelRows], codes[kPanelRows];
    int32_t places[kPanelRows];
    const size_t first = table * tables.levels * kPanelRows;
    Isa::store(lanes, scaled);
    count_below(lanes, tables.thresholds + table * (tables.levels - 1) * kPanelRows, tables.levels - 1, places);
    for (int lane = 0; lane < kPanelRows; lane++) {
      values[lane] = tables.values[first + places[lane] * kPanelRows + lane];
      codes[lane] = tables.codes[first + places[lane] * kPanelRows + lane];
    }
    value = Isa::load(values);
    level = Isa::load(codes);
  }
};

// Left to right: round column j, push its error e onto those to come: w[k] -= e U[j, k] (+ w_j P[j, k]).
template <class Isa>
void compensate_panel(const RoundingPanel& panel, const float* factor, const float* drift, float* weights) {
  const int n = panel.columns;
  for (int j = 0; j < n; j++) {
    const float* u = factor + static_cast<size_t>(j) * n;
    const auto w = Isa::load(weights + static_cast<size_t>(j) * kPanelRows);
    const Rounded<Isa> rounded(panel, j, w);
    const auto error = Isa::div(Isa::sub(w, rounded.value), Isa::set1(u[j]));
    Isa::store(weights + static_cast<size_t>(j) * kPanelRows, rounded.level);
    if (drift == nullptr) {
      for (int k = j + 1; k < n; k++) {
        float* at = weights + static_cast<size_t>(k) * kPanelRows;
        Isa::store(at, Isa::sub(Isa::load(at), Isa::mul(error, Isa::set1(u[k]))));
      }
      continue;
    }
    const float* p = drift + static_cast<size_t>(j) * n;
    for (int k = j + 1; k < n; k++) {
      float* at = weights + static_cast<size_t>(k) * kPanelRows;
      const auto less = Isa::sub(Isa::load(at), Isa::mul(error, Isa::set1(u[k])));
      Isa::store(at, Isa::add(less, Isa::mul(w, Isa::set1(p[k]))));
    }
  }
}

// One sweep of coordinate descent: with r = (v - w) H, column j moves to the level nearest v_j - r_j / H_jj and r follows.
template <class Isa>
void descend_panel(const RoundingPanel& panel, const float* gram, float* values, float* residuals, float* levels) {
  const int n = panel.columns;
  for (int j = 0; j < n; j++) {
    const float* h = gram + static_cast<size_t>(j) * n;
    const size_t here = static_cast<size_t>(j) * kPanelRows;
    const auto before = Isa::load(values + here);
    const auto best = Isa::sub(before, Isa::div(Isa::load(residuals + here), Isa::set1(h[j])));
    const Rounded<Isa> rounded(panel, j, best);
    const auto change = Isa::sub(rounded.value, before);
    Isa::store(values + here, rounded.value);
    Isa::store(levels + here, rounded.level);
    if (Isa::highest(Isa::abs(change)) == 0.0f) continue;
    for (int k = 0; k < n; k++) {
      float* at = residuals + static_cast<size_t>(k) * kPanelRows;
      Isa::store(at, Isa::add(Isa::load(at), Isa::mul(change, Isa::set1(h[k]))));
    }
  }
}

}  // namespace
