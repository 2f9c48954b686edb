"""Entropy: the cut whose quantized histogram tells least apart from the histogram itself (KL divergence).

|x| is counted in 32 bins for each level above zero, 2048 at most. For a cut after k bins, level j holds the bins
floor(j k / levels) to floor((j + 1) k / levels); P is the counts up to the cut with all beyond added to the last bin; Q gives
every level's count evenly to those of its bins that are not empty. Of the cuts after every bin, from one bin a level to the
largest |x|, the one of least

    sum p ln(p / q)

is taken, the widest of equals. Where nothing but what lies beyond is in the last bin, Q has 1e-4 of a count there, or no
lone outlier could be cut off. With S the count of a level, n its bins that are not empty, and B what lies beyond,

    sum p ln q = sum over levels of S ln(S / n) + B ln q_last

where S and n are differences of running sums; levels of several cuts that are the same bins are worked out once.
Migacz, 8-bit Inference with TensorRT, 2017, whose bins are 2048 too; the small count as in MXNet's version of it.
Meant for tensors and channels: a group of 64 values is no histogram.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.core import QParams, Scheme
from bitwright.fitting.percentile import clipped
from bitwright.formats import FORMATS
from bitwright.formats.full_precision import FullPrecision
from bitwright.formats.uniform import Uniform

BINS_A_LEVEL, MOST_BINS = 32, 2048
EPSILON = 1e-4  # counts
TIE = 1e-10  # nats, far beyond what rounding makes of equals
CHUNK = 1 << 14  # bins of histograms at a time: what is worked out from them stays in the cache

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


def entropy(weights: Floats, scheme: Scheme) -> QParams:
    """(rows, columns) float32 -> one scale (and zero point) a group."""
    groups, levels = weights.reshape(-1, scheme.group_size(weights.shape)), levels_above_zero(scheme)
    top, bins = np.abs(groups).max(axis=1), min(levels * BINS_A_LEVEL, MOST_BINS)
    step = max(1, CHUNK // bins)
    parts = [(groups[i : i + step], top[i : i + step]) for i in range(0, len(groups), step)]
    cut = np.concatenate([best_cut(histograms(part, high, bins), levels) for part, high in parts])
    return clipped(groups, (top * cut / bins).astype(np.float32), scheme, (weights.shape[0], weights.shape[1]))


def levels_above_zero(scheme: Scheme) -> int:
    """Rounded up to a power of two, the zero among them."""
    grid = FORMATS[scheme.format]
    assert not isinstance(grid, FullPrecision)
    return grid.highest + 1 if isinstance(grid, Uniform) else 1 << (grid.bits - 1)


def histograms(groups: Floats, top: Floats, bins: int) -> Doubles:
    """(groups, bins) counts of |x| over [0, top]."""
    place = np.abs(groups) / np.where(top > 0, top, np.float32(1))[:, None] * np.float32(bins)
    index = np.minimum(place.astype(np.int64), bins - 1) + bins * np.arange(len(groups))[:, None]
    return np.bincount(index.reshape(-1), minlength=bins * len(groups)).reshape(-1, bins).astype(np.float64)


@dataclass(frozen=True, eq=False)
class Cuts:
    """Every cut of a histogram, and every run of bins that is a level of one of them."""

    ends: Indices  # (cuts,) bins up to the cut, the widest first
    first: Indices  # (runs,) bins before the run
    last: Indices  # (runs,) bins up to its end
    runs: Indices  # (cuts, levels) which run it is


@lru_cache(maxsize=8)
def all_cuts(bins: int, levels: int) -> Cuts:
    ends = np.arange(bins, levels - 1, -1)
    edges = ends[:, None] * np.arange(levels + 1) // levels
    keys, runs = np.unique(edges[:, :-1] * (bins + 1) + edges[:, 1:], return_inverse=True)
    return Cuts(ends, keys // (bins + 1), keys % (bins + 1), runs.reshape(len(ends), levels))


def best_cut(counts: Doubles, levels: int) -> Indices:
    """(groups, bins) whole counts, at least a bin a level -> (groups,) bins up to the best cut."""
    found = divergences(counts, levels)
    least = found.min(axis=1, keepdims=True)
    return np.asarray(all_cuts(counts.shape[1], levels).ends[np.argmax(found <= least + TIE, axis=1)])


def divergences(counts: Doubles, levels: int) -> Doubles:
    """(groups, bins) whole counts -> (groups, cuts) nats between P and Q, the widest cut first; inf beyond the largest |x|."""
    cuts = all_cuts(counts.shape[1], levels)
    total, below, filled, p_log_p = counts.sum(axis=1), running(counts), running(counts > 0), running(x_log_x(counts))
    mass = below[:, cuts.last] - below[:, cuts.first]
    share = mass / np.maximum(filled[:, cuts.last] - filled[:, cuts.first], 1)
    p_log_q = (mass * np.log(np.maximum(share, 1))).take(cuts.runs, axis=1).sum(axis=2)
    kept, in_last = below[:, cuts.ends], counts[:, cuts.ends - 1]
    beyond = total[:, None] - kept
    small = (in_last == 0) & (beyond > 0)
    p_log_q += beyond * np.log(np.where(small, EPSILON, np.maximum(share[:, cuts.runs[:, -1]], 1)))
    q_total = np.where(small, kept + EPSILON, np.maximum(kept, 1))
    total = np.maximum(total, 1)[:, None]
    found = (p_log_p[:, cuts.ends - 1] + x_log_x(in_last + beyond) - p_log_q) / total + np.log(q_total / total)
    return np.where((in_last + beyond > 0) | (cuts.ends == levels), found, np.inf)


def running(x: npt.NDArray[Any]) -> Doubles:
    """(groups, bins) -> (groups, bins + 1), the sums of what lies before each edge."""
    sums = np.zeros((x.shape[0], x.shape[1] + 1))
    np.cumsum(x, axis=1, out=sums[:, 1:])
    return sums


def x_log_x(x: Doubles) -> Doubles:
    """Of whole numbers; 0 of 0."""
    return x * np.log(np.maximum(x, 1))


def best_cut_reference(counts: list[float], levels: int) -> int:
    """The slow twin of `best_cut`, of one histogram."""
    ends = range(len(counts), levels - 1, -1)
    found = [divergence_reference(counts, end, levels) for end in ends]
    return next(end for end, divergence in zip(ends, found, strict=True) if divergence <= min(found) + TIE)


def divergence_reference(counts: list[float], end: int, levels: int) -> float:
    """The slow twin of `divergences`, of one cut, bin by bin."""
    if end > levels and not any(counts[end - 1 :]):
        return math.inf
    p, q = counts[:end], [0.0] * end
    p[-1] += sum(counts[end:])
    for level in range(levels):
        bins = [i for i in range(level * end // levels, (level + 1) * end // levels) if counts[i] > 0]
        for i in bins:
            q[i] = sum(counts[j] for j in bins) / len(bins)
    if p[-1] > 0 and q[-1] == 0:
        q[-1] = EPSILON
    p_total, q_total = sum(p), sum(q)
    return sum(a / p_total * math.log(a / p_total / (b / q_total)) for a, b in zip(p, q, strict=True) if a > 0)
