"""Learned levels: k-means in one dimension (Lloyd 1957; weighted). A level moves to the mean of the values nearest to it.

The level 0 stays where it is, so that zeros remain zeros. Used for weights by Han et al. 2016 (arXiv:1510.00149), one table
a row by any4 (arXiv:2507.04610).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitwright.fitting.cells import Cells, Doubles

STEPS = 25


def kmeans(cells: Cells, start: Doubles, fixed: npt.NDArray[np.bool_] | None = None) -> Doubles:
    """(tables, levels) ascending -> the levels after at most 25 rounds. `fixed` ones stay; where not given, the zeros do."""
    levels, stays = start.copy(), start == 0 if fixed is None else fixed
    for _ in range(STEPS):
        weight, total, _ = cells.moments(levels)
        moved = np.where((weight > 0) & ~stays, total / np.where(weight > 0, weight, 1), levels)
        if np.array_equal(moved, levels):
            break
        levels = moved
    return levels


def kmeans_reference(x: Doubles, weights: Doubles, start: Doubles) -> Doubles:
    """The slow twin, of one table: (values,), (values,) and (levels,)."""
    levels = start.copy()
    for _ in range(STEPS):
        nearest = np.abs(x[:, None] - levels[None, :]).argmin(axis=1)
        for k in range(len(levels)):
            member = nearest == k
            if start[k] != 0 and weights[member].sum() > 0:
                levels[k] = np.average(x[member], weights=weights[member])
    return levels
