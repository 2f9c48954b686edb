"""A range that forgets: moving averages of each batch's smallest and largest value (Jacob et al. 2018, arXiv:1712.05877, 3.1).

With n batches seen and momentum c, the average of x_1 .. x_n is S_n / (1 - c^n) with S_n = c S_(n-1) + (1 - c) x_n, so that
the first batches are not pulled towards zero. Batches are in order: a + b is a's batches, then b's, S = c^(n of b) S_a + S_b.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from bitwright.formats.checks import require_finite

Floats = npt.NDArray[np.float32]


@dataclass
class MovingAverage:
    """`momentum` in [0, 1): the share of the past."""

    momentum: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be at least 0 and below 1, not {self.momentum}")
        self.batches = 0
        self._sums = np.zeros(2)

    def update(self, x: Floats) -> None:
        """Take in one batch of any shape. Raises `NonFiniteError`."""
        values = require_finite(x)
        if values.size:
            self._sums = self.momentum * self._sums + (1 - self.momentum) * np.array([values.min(), values.max()])
            self.batches += 1

    @property
    def range(self) -> tuple[float, float]:
        """(low, high); (0, 0) before the first batch."""
        known = 1 - self.momentum**self.batches
        low, high = self._sums / known if known else self._sums
        return float(low), float(high)

    def __add__(self, other: Self) -> Self:
        """What one observer would hold that had seen this one's batches and then the other's."""
        assert self.momentum == other.momentum
        total = type(self)(self.momentum)
        total.batches = self.batches + other.batches
        total._sums = self.momentum**other.batches * self._sums + other._sums
        return total
