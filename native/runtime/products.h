// Matrix products inside the token step: rows are put into the form that the kernels read, then every thread
// multiplies its share of the panels. Private to the runtime.
#pragma once

#include <algorithm>

#include "bitwright/session.h"

namespace bitwright {

template <class Read>
void Session::multiply(int thread, int count, int columns, std::span<const Product> products, const Read& read) {
  // A single row is prepared by every thread for itself: cheaper than meeting at a barrier.
  const bool single = count == 1;
  Scratch& scratch = scratch_[thread];
  RowBuffer& rows = single ? scratch.row : rows_;
  const Wanted forms = wanted(products);
  // Few rows of codes lie apart, so that threads may take one each; others share cache lines with their tile.
  const bool alone = apart(count) && !forms.dense && !forms.rotated_dense;
  const int tile = alone ? 1 : kernels_.tile, tiles = (count + tile - 1) / tile;
  const Share share = single ? Share(1, 0, 1) : Share(tiles, thread, team_.size());
  for (int row = share.begin * tile; row < std::min(count, share.end * tile); row++)
    place_row(scratch, rows, forms, row, count, columns, read(row, scratch.line.data()));
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
    multiply_range(scratch, rows, count, product, {cut(low), cut(high)});
    before += bytes;
  }
}

}  // namespace bitwright
