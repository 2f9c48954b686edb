"""What a table of levels catches: weights sorted once, so that the moments of every cell are differences of running sums.

Cell k holds the values whose nearest level is level k. With w, x a value's weight and value, and sums over a cell,

    error = sum w x^2 - 2 c sum w x + c^2 sum w       for the cell's level c
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Cells:
    """Values of several tables at once: `keys` ascend over all of them, `sums` (3, values + 1) run over w, w x, w x^2."""

    keys: Doubles
    sums: Doubles
    offset: Doubles  # (tables, 1), what was added to a table's values so that all of them are apart
    ends: npt.NDArray[np.intp]  # (tables + 1,) where each table's values begin and end

    @classmethod
    def of(cls, x: npt.NDArray[np.float32], weights: npt.NDArray[np.float32]) -> Cells:
        """(tables, values) each."""
        order = np.argsort(x, axis=1, kind="stable")
        values = np.take_along_axis(x, order, axis=1).astype(np.float64)
        w = np.take_along_axis(weights, order, axis=1).astype(np.float64)
        offset = np.arange(len(x))[:, None] * np.float64(4 * np.abs(x).max(initial=1) + 4)
        moments = np.stack([w, w * values, w * values * values]).reshape(3, -1)
        sums = np.zeros((3, moments.shape[1] + 1))
        np.cumsum(moments, axis=1, out=sums[:, 1:])
        return cls((values + offset).reshape(-1), sums, offset.astype(np.float64), np.arange(len(x) + 1) * x.shape[1])

    def moments(self, levels: Doubles) -> Doubles:
        """(3, tables, levels) sums of each cell, for ascending levels."""
        middle = (levels[:, :-1] + levels[:, 1:]) / 2
        cuts = np.searchsorted(self.keys, middle + self.offset)
        edges = np.concatenate([self.ends[:-1, None], cuts, self.ends[1:, None]], axis=1)
        return np.diff(self.sums[:, edges], axis=2)

    def error(self, levels: Doubles) -> Doubles:
        """(tables,) weighted squared errors."""
        w, wx, wxx = self.moments(levels)
        return np.asarray((wxx - 2 * levels * wx + levels**2 * w).sum(axis=1))
