#include "bitwright/compensate.h"

#include <algorithm>
#include <vector>

#include "bitwright/kernels.h"
#include "parallel.h"

namespace bitwright {

namespace {

// (rows, n) to [n][16] from row `first` on; lanes beyond the last row repeat it.
void to_panel(const float* matrix, size_t first, size_t rows, size_t n, float* panel) {
  for (size_t lane = 0; lane < kPanelRows; lane++) {
    const float* row = matrix + std::min(first + lane, rows - 1) * n;
    for (size_t k = 0; k < n; k++) panel[k * kPanelRows + lane] = row[k];
  }
}

void to_codes(const float* levels, size_t first, size_t rows, size_t n, int low, uint8_t* codes) {
  for (size_t row = first; row < std::min(first + kPanelRows, rows); row++)
    for (size_t k = 0; k < n; k++)
      codes[row * n + k] = static_cast<uint8_t>(static_cast<int>(levels[k * kPanelRows + row - first]) - low);
}

// The tables of 16 rows side by side, as RoundingTables wants them.
class TablePanel {
 public:
  TablePanel(const Tables* tables, size_t rows) : tables_(tables), rows_(rows) {
    if (tables == nullptr) return;
    by_row_ = tables->count < rows || rows == 0 ? 0 : tables->count / rows;
    kept_ = std::max<size_t>(1, by_row_);
    const size_t levels = static_cast<size_t>(tables->levels);
    thresholds_.resize(kept_ * (levels - 1) * kPanelRows);
    values_.resize(kept_ * levels * kPanelRows);
    codes_.resize(values_.size());
  }
  void load(size_t first) {
    if (tables_ == nullptr) return;
    const size_t levels = static_cast<size_t>(tables_->levels);
    for (size_t lane = 0; lane < kPanelRows; lane++) {
      const size_t from = std::min(first + lane, rows_ - 1) * by_row_;  // 0 where one table serves all
      for (size_t k = 0; k < kept_ * (levels - 1); k++)
        thresholds_[k * kPanelRows + lane] = tables_->thresholds[from * (levels - 1) + k];
      for (size_t k = 0; k < kept_ * levels; k++) {
        values_[k * kPanelRows + lane] = tables_->values[from * levels + k];
        codes_[k * kPanelRows + lane] = tables_->codes[from * levels + k];
      }
    }
  }
  RoundingTables view() const {
    if (tables_ == nullptr) return {};
    return {tables_->levels, kept_ > 1, thresholds_.data(), values_.data(), codes_.data()};
  }

 private:
  const Tables* tables_;
  size_t rows_, by_row_ = 0, kept_ = 1;  // tables for each row, 0 for one in all; tables held
  std::vector<float> thresholds_, values_, codes_;
};

// Calls work(first row, panel of grids) for each 16 rows.
template <class Work>
void for_each_panel(size_t rows, size_t columns, const RowGrids& grids, Work work) {
  in_parallel((rows + kPanelRows - 1) / kPanelRows, rows * columns, [&](size_t begin, size_t end) {
    std::vector<float> scales(grids.groups * kPanelRows), zero_points(grids.groups * kPanelRows);
    TablePanel tables(grids.tables, rows);
    for (size_t first = begin * kPanelRows; first < end * kPanelRows; first += kPanelRows) {
      tables.load(first);
      to_panel(grids.scales, first, rows, grids.groups, scales.data());
      to_panel(grids.zero_points, first, rows, grids.groups, zero_points.data());
      work(first, RoundingPanel{static_cast<int>(columns), grids.group_of, scales.data(), zero_points.data(), grids.low,
                                grids.high, tables.view()});
    }
  });
}

}  // namespace

void compensate(const float* weights, size_t rows, size_t columns, const RowGrids& grids, const float* factor, const float* drift,
                uint8_t* codes) {
  for_each_panel(rows, columns, grids, [&](size_t first, const RoundingPanel& panel) {
    std::vector<float> values(columns * kPanelRows);
    to_panel(weights, first, rows, columns, values.data());
    kernels().compensate_panel(panel, factor, drift, values.data());
    to_codes(values.data(), first, rows, columns, grids.tables ? 0 : grids.low, codes);
  });
}

void descend(const float* values, const float* residuals, size_t rows, size_t columns, const RowGrids& grids, const float* gram,
             int sweeps, uint8_t* codes) {
  for_each_panel(rows, columns, grids, [&](size_t first, const RoundingPanel& panel) {
    std::vector<float> value(columns * kPanelRows), residual(columns * kPanelRows), level(columns * kPanelRows);
    to_panel(values, first, rows, columns, value.data());
    to_panel(residuals, first, rows, columns, residual.data());
    for (int sweep = 0; sweep < sweeps; sweep++)
      kernels().descend_panel(panel, gram, value.data(), residual.data(), level.data());
    to_codes(level.data(), first, rows, columns, grids.tables ? 0 : grids.low, codes);
  });
}

}  // namespace bitwright
