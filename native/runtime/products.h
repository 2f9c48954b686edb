// Matrix products inside the token step: rows are put into the form that the kernels read, then every thread multiplies
// them with its share of the panels; or, where rows are many, its share of the rows with all panels: what it then writes
// and reads stays in its own cache. Private to the runtime.
#pragma once

#include <algorithm>

#include "bitwright/session.h"

namespace bitwright {

template <class Read>
void Session::multiply(int thread, int count, int columns, std::span<const Product> products, const Read& read) {
  // A single row is prepared by every thread for itself: cheaper than meeting at a barrier.
  const bool single = count == 1, by_rows = shares_rows(count);
  Scratch& scratch = scratch_[thread];
  RowBuffer& rows = single ? scratch.row : rows_;
  const Wanted forms = wanted(products, count);
  // Few rows of codes lie apart, so that threads may take one each; others share cache lines with their tile.
  const bool alone = forms.apart && !forms.dense && !forms.rotated_dense;
  const int tile = alone ? 1 : by_rows ? rows_of_range(forms) : kernels_.tile;
  const Share share = single ? Share(1, 0, 1) : Share((count + tile - 1) / tile, thread, team_.size());
  const int first = share.begin * tile, last = std::min(count, share.end * tile);
  for (int row = first; row < last; row++) place_row(scratch, rows, forms, row, count, columns, read(row, scratch.line.data()));
  if (by_rows) {
    for (const Product& product : products)
      multiply_range(scratch, rows, {first, last - first, count, forms.apart}, product, {0, product.matrix->panels()});
    return;
  }
  if (!single) team_.barrier();

  // Threads take equal bytes of weights, cut at panels.
  size_t total = 0, before = 0;
  for (const Product& product : products) total += product.bytes();
  const size_t low = total * thread / team_.size(), high = total * (thread + 1) / team_.size();
  for (const Product& product : products) {
    const size_t bytes = product.bytes(), panels = product.matrix->panels();
    const auto cut = [&](size_t at) {
      return static_cast<int>(at <= before ? 0 : std::min(panels, (at - before) * panels / bytes));
    };
    multiply_range(scratch, rows, {0, count, count, forms.apart}, product, {cut(low), cut(high)});
    before += bytes;
  }
}

// What the down projection reads is computed, or of few rows only what it is computed from; see `opened`.
template <class Read>
void Session::multiply_opening(int thread, int count, const Matrix& gate, const Matrix& up, const Read& read) {
  const int width = model_->hidden, inner = model_->intermediate;
  if (count <= kFewRows)
    multiply(thread, count, width,
             {{&gate, gate_.data(), gate_stride(), false, nullptr}, {&up, up_.data(), inner, false, nullptr}}, read);
  else
    multiply(thread, count, width, {{&gate, gate_.data(), gate_stride(), false, nullptr, &up}}, read);
}

}  // namespace bitwright
