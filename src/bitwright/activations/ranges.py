"""Which largest value a static scale is made for: `RANGES[name](histogram, round, levels)` -> the cut beyond which is clipped.

    minmax      the largest seen
    percentile  the least that 99.99 % of all |x| lie below (Wu et al. 2020, arXiv:2004.09602)
    mse         the one of least squared error, clipping and rounding together
    entropy     the one whose quantized histogram tells least apart from the histogram (fitting/entropy.py)
    average     the moving average of the windows' largest values (observers/moving_average.py)

All but the last read one streaming histogram (observers/histogram.py), so a range is exact up to a bin.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bitwright.fitting.entropy import best_cut
from bitwright.observers.histogram import Histogram

Doubles = npt.NDArray[np.float64]
Round = Callable[[Doubles, float], Doubles]  # (values, largest) -> the values as they come back
Range = Callable[[Histogram, Round, int], float]

SHARE = 0.9999
CANDIDATES = 128  # cuts that mse tries, evenly spaced


def minmax(histogram: Histogram, round: Round, levels: int) -> float:
    """Up to a bin."""
    return histogram.bound(1.0)


def percentile(histogram: Histogram, round: Round, levels: int) -> float:
    return histogram.bound(SHARE)


def mse(histogram: Histogram, round: Round, levels: int) -> float:
    counts, largest = histogram.magnitudes(), histogram.bound(1.0)
    centres = (np.arange(len(counts)) + 0.5) * histogram.width
    cuts = largest * np.arange(1, CANDIDATES + 1) / CANDIDATES
    errors = [float((counts * (round(np.asarray(centres), cut) - centres) ** 2).sum()) for cut in cuts]
    return float(cuts[int(np.argmin(errors))])


def entropy(histogram: Histogram, round: Round, levels: int) -> float:
    """`levels` above zero, the zero among them. The best of all bin edges."""
    counts = histogram.magnitudes().astype(np.float64)
    return float(best_cut(counts[None], levels)[0] * histogram.width)


RANGES: dict[str, Range] = {"minmax": minmax, "percentile": percentile, "mse": mse, "entropy": entropy}
AVERAGE = "average"
NAMES = (*RANGES, AVERAGE)
