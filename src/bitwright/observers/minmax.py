"""The smallest and the largest value seen: in all, or in each column. Two numbers of memory a column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from bitwright.formats.checks import require_finite

Floats = npt.NDArray[np.float32]


@dataclass
class MinMax:
    """`columns` None for one range in all. Before anything is seen, `low` is infinity and `high` minus infinity."""

    columns: int | None = None

    def __post_init__(self) -> None:
        shape = () if self.columns is None else (self.columns,)
        self.low: Floats = np.full(shape, np.inf, np.float32)
        self.high: Floats = np.full(shape, -np.inf, np.float32)

    def update(self, x: Floats) -> None:
        """Take in (..., columns) float32. Raises `NonFiniteError`."""
        rows = require_finite(x).reshape(-1, 1 if self.columns is None else self.columns)
        axis = None if self.columns is None else 0
        if rows.size:
            self.low = np.minimum(self.low, rows.min(axis=axis))
            self.high = np.maximum(self.high, rows.max(axis=axis))

    def __add__(self, other: Self) -> Self:
        """What one observer would hold that had seen both."""
        assert self.columns == other.columns
        total = type(self)(self.columns)
        total.low, total.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return total
