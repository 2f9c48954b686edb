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
    """Values of several tables at once.

    `keys`    (tables * values,) ascending: values in order, those of table t moved by t * `apart`, so that one search finds
              the cuts of all tables
    `sums`    (3, tables, values + 1) running sums of w, w x, w x^2
    """

    keys: Doubles
    apart: float
    sums: Doubles

    @classmethod
    def of(cls, x: npt.NDArray[np.float32], weights: npt.NDArray[np.float32]) -> Cells:
        """(tables, values) each."""
        order = np.argsort(x, axis=1, kind="stable")
        values = np.take_along_axis(x, order, axis=1).astype(np.float64)
        w = np.take_along_axis(weights, order, axis=1).astype(np.float64)
        sums = np.zeros((3, x.shape[0], x.shape[1] + 1))
        np.cumsum(np.stack([w, w * values, w * values * values]), axis=2, out=sums[:, :, 1:])
        apart = float(2.0 ** np.ceil(np.log2(4 * max(1.0, float(np.abs(x).max())))))
        return cls((values + apart * np.arange(len(x))[:, None]).reshape(-1), apart, sums)

    def moments(self, levels: Doubles) -> Doubles:
        """(3, tables, levels) sums of each cell, for ascending levels."""
        tables, values = self.sums.shape[1], self.sums.shape[2] - 1
        which = np.arange(tables)[:, None]
        cuts = np.searchsorted(self.keys, (levels[:, :-1] + levels[:, 1:]) / 2 + self.apart * which) - values * which
        edges = np.concatenate([np.zeros((tables, 1), np.intp), cuts, np.full((tables, 1), values)], axis=1)
        return np.diff(np.take_along_axis(self.sums, edges[None, :, :], axis=2), axis=2)

    def error(self, levels: Doubles) -> Doubles:
        """(tables,) weighted squared errors."""
        w, wx, wxx = self.moments(levels)
        return np.asarray((wxx - 2 * levels * wx + levels**2 * w).sum(axis=1))
