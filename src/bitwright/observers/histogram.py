"""A histogram whose range grows by powers of two, so that no value has to be kept until the range is known.

BINS even bins cover [-R, R), R = 2^e. A value beyond doubles R as often as needed; neighbouring bins then fall together in pairs,
and since every edge of the wider bins is one of the narrower ones, the counts are those of a histogram that had been that wide
from the start: merging and streaming are exact, whatever the order. A value counts for the bin that holds it; R itself and
zeros in an empty histogram start at the smallest range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from bitwright import _native
from bitwright.formats.checks import require_finite

BINS = 4096
SMALLEST_EXPONENT = -60  # of R

Counts = npt.NDArray[np.int64]


@dataclass
class Histogram:
    """`counts` (BINS,) over [-2^exponent, 2^exponent)."""

    def __post_init__(self) -> None:
        self.exponent = SMALLEST_EXPONENT
        self.counts: Counts = np.zeros(BINS, np.int64)

    def update(self, x: npt.NDArray[np.float32]) -> None:
        """Take in values of any shape. Raises `NonFiniteError`."""
        values = np.ascontiguousarray(x, np.float32).reshape(-1)
        if not values.size:
            return
        counts, largest = _native.count_in_bins(values, self.exponent, BINS)
        if not np.isfinite(largest):
            require_finite(values)
        _, exponent = np.frexp(largest)  # |x| < 2^exponent
        if exponent > self.exponent:
            self._widen(int(exponent))
            counts, _ = _native.count_in_bins(values, self.exponent, BINS)
        self.counts = self.counts + counts

    def _widen(self, exponent: int) -> None:
        quarter = BINS // 4
        while self.exponent < exponent:
            if not self.counts.any():
                self.exponent = exponent
                return
            wider = np.zeros(BINS, np.int64)
            wider[quarter : 3 * quarter] = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts, self.exponent = wider, self.exponent + 1

    def __add__(self, other: Self) -> Self:
        """What one observer would hold that had seen both, exactly."""
        total = type(self)()
        for part in (self, other):
            moved = type(self)()
            moved.exponent, moved.counts = part.exponent, part.counts
            moved._widen(max(self.exponent, other.exponent))
            total.counts = total.counts + moved.counts
        total.exponent = max(self.exponent, other.exponent)
        return total

    @property
    def width(self) -> float:
        """Of a bin."""
        return 2.0 ** (self.exponent + 1) / BINS

    def magnitudes(self) -> Counts:
        """(BINS / 2,) counts of |x|, bins of the same width from 0 on."""
        return self.counts[BINS // 2 :] + self.counts[: BINS // 2][::-1]

    def bound(self, share: float) -> float:
        """The least bin edge that at least `share` of all |x| lie below."""
        running = np.cumsum(self.magnitudes())
        return float((np.searchsorted(running, share * running[-1]) + 1) * self.width) if running[-1] else 0.0


def counts_reference(values: npt.NDArray[np.float32], exponent: int) -> Counts:
    """The slow twin of what is counted: of values within [-2^exponent, 2^exponent), one by one."""
    counts = np.zeros(BINS, np.int64)
    for value in values.reshape(-1).astype(np.float64):
        counts[int(np.floor(value * 2.0**-exponent * (BINS // 2))) + BINS // 2] += 1
    return counts
