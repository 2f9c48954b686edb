"""Count, mean and variance of each column, by sums that are merged without loss.

Two parts with counts n, m, means p, q and sums of squared deviations P, Q make one with (Chan, Golub, LeVeque 1979)

    mean = p + (q - p) m / (n + m),      deviations = P + Q + (q - p)^2 n m / (n + m)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from bitwright.formats.checks import require_finite

Doubles = npt.NDArray[np.float64]


@dataclass
class ColumnMoments:
    """Of (rows, columns) data, in float64."""

    columns: int

    def __post_init__(self) -> None:
        self.count = 0
        self.mean: Doubles = np.zeros(self.columns)
        self._deviations: Doubles = np.zeros(self.columns)

    def update(self, x: npt.NDArray[np.float32]) -> None:
        """Take in (..., columns) float32. Raises `NonFiniteError`."""
        rows = require_finite(x).reshape(-1, self.columns)
        if len(rows):
            mean = rows.mean(axis=0, dtype=np.float64)
            self._merge(len(rows), mean, ((rows - mean) ** 2).sum(axis=0))

    def _merge(self, count: int, mean: Doubles, deviations: Doubles) -> None:
        both, shift = self.count + count, mean - self.mean
        self._deviations = self._deviations + deviations + shift**2 * (self.count * count / both)
        self.mean = self.mean + shift * (count / both)
        self.count = both

    @property
    def variance(self) -> Doubles:
        """(columns,), of the data seen themselves; zeros before any."""
        return self._deviations / max(self.count, 1)

    def __add__(self, other: Self) -> Self:
        """What one observer would hold that had seen both, up to rounding."""
        assert self.columns == other.columns
        total = type(self)(self.columns)
        for part in (self, other):
            if part.count:
                total._merge(part.count, part.mean, part._deviations)
        return total
