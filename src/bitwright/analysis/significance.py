"""How sure a measured figure is: the percentile bootstrap over whole units of text.

The tokens of a window are not independent, windows nearly are. So a replicate draws as many units (windows) as there
are, with replacement, and the statistic is computed anew on the tokens of the drawn units; the 2.5 % and 97.5 %
quantiles of 1000 replicates bound the interval (Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter
13; resampling blocks of dependent data: Kuensch 1989, Annals of Statistics 17(3)). Drawing is by counts: a replicate
is a multinomial vector c over units, and with unit sums S_u and sizes n_u

    mean = sum_u c_u S_u / sum_u c_u n_u,        q-quantile = the smallest x with sum_{token <= x} c_unit >= q sum_u c_u n_u

Figures of two models on the same tokens are compared pairwise: both see the same counts, so that what is hard for both
cancels, and a perplexity ratio is exp(mean(nll - nll_reference)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

REPLICATES = 1000
MINIMUM_UNITS = 20
_CHUNK_CELLS = 1 << 22  # replicates x tokens that a quantile holds at once: 32 MB


@dataclass(frozen=True)
class Resampling:
    """One set of draws, shared by all statistics so that they stay paired.

    `unit_of_token`  (tokens,) int64, the unit each scored token belongs to
    `counts`         (replicates, units) int64, how often each unit was drawn
    """

    unit_of_token: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    def means(self, values: npt.NDArray[np.floating]) -> Doubles:
        """(tokens,) -> (replicates,) means."""
        units = self.counts.shape[1]
        sums = np.bincount(self.unit_of_token, weights=values, minlength=units)
        return (self.counts @ sums) / self._tokens_drawn()

    def means_where(self, values: npt.NDArray[np.floating], mask: npt.NDArray[np.bool_]) -> Doubles:
        """(tokens,) -> means over the tokens of `mask`, one a replicate that drew any of them."""
        units = self.counts.shape[1]
        sums = self.counts @ np.bincount(self.unit_of_token[mask], weights=values[mask], minlength=units)
        drawn = self.counts @ np.bincount(self.unit_of_token[mask], minlength=units)
        return np.asarray(sums[drawn > 0] / drawn[drawn > 0], np.float64)

    def quantiles(self, values: npt.NDArray[np.floating], levels: Sequence[float]) -> Doubles:
        """(tokens,) and levels in (0, 1) -> (levels, replicates) quantiles, each one of the values."""
        order = np.argsort(values, kind="stable")
        ordered, unit = np.asarray(values, np.float64)[order], self.unit_of_token[order]
        drawn = self._tokens_drawn()
        targets = [np.ceil(level * drawn - 1e-9)[:, None] for level in levels]
        found = np.empty((len(levels), len(self.counts)))
        step = max(1, _CHUNK_CELLS // len(ordered))
        for begin in range(0, len(self.counts), step):
            part = slice(begin, begin + step)
            weight_up_to = np.cumsum(self.counts[part][:, unit], axis=1)
            for row, target in enumerate(targets):
                found[row, part] = ordered[(weight_up_to < target[part]).sum(axis=1)]
        return found

    def _tokens_drawn(self) -> npt.NDArray[np.int64]:
        sizes = np.bincount(self.unit_of_token, minlength=self.counts.shape[1])
        drawn: npt.NDArray[np.int64] = self.counts @ sizes
        return drawn


def resample(unit_of_token: npt.NDArray[np.int64], replicates: int = REPLICATES, seed: int = 0) -> Resampling:
    """Draw the replicates: units 0 .. max(unit_of_token), each as likely."""
    units = int(unit_of_token.max()) + 1
    counts = np.random.default_rng(seed).multinomial(units, np.full(units, 1.0 / units), size=replicates)
    return Resampling(unit_of_token, counts)


def units_of_windows(window_sizes: Sequence[int]) -> npt.NDArray[np.int64]:
    """The unit of each token, for windows of these many scored tokens: whole windows wherever there are enough.

    With fewer than 20 windows they are halved, again and again, until there are 20 units or a unit is one token:
    an interval can then be given for any text, but it is too narrow by as much as neighbouring tokens depend on each other.
    """
    length = max(window_sizes)
    while sum(-(-size // length) for size in window_sizes) < MINIMUM_UNITS and length > 1:
        length = -(-length // 2)
    pieces = [min(length, size - begin) for size in window_sizes for begin in range(0, size, length)]
    return np.repeat(np.arange(len(pieces)), pieces)


def percentile_interval(replicates: Doubles, level: float = 0.95) -> tuple[float, float]:
    """The middle `level` share of the replicates."""
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def quantile(values: npt.NDArray[np.floating], level: float) -> float:
    """The smallest value that at least this share of all values does not exceed: as `Resampling.quantiles` has it."""
    return float(np.quantile(values, level, method="inverted_cdf"))
