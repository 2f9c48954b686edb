"""Entropy: the cut whose quantized histogram tells least apart from the histogram itself (KL divergence).

|x| is counted in 32 bins for each level above zero. For a cut after k bins a level, P is the counts up to there with all
beyond added to the last bin; Q gives every level's count evenly to those of its k bins that are not empty. The cut of least

    sum p ln(p / q)

is taken, the widest of equals. Where nothing but what lies beyond is in the last bin, Q has 1e-4 of a count there, or no
lone outlier could be cut off. Migacz, 8-bit Inference with TensorRT, 2017; the small count as in MXNet's version of it.
Meant for tensors and channels: a group of 64 values is no histogram.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitwright.core import QParams, Scheme
from bitwright.fitting.percentile import clipped
from bitwright.formats import FORMATS
from bitwright.formats.full_precision import FullPrecision
from bitwright.formats.uniform import Uniform

BINS_A_LEVEL = 32
EPSILON = 1e-4  # counts
CHUNK = 1 << 22  # bins of histograms at a time

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


def entropy(weights: Floats, scheme: Scheme) -> QParams:
    """(rows, columns) float32 -> one scale (and zero point) a group."""
    groups, levels = weights.reshape(-1, scheme.group_size(weights.shape)), levels_above_zero(scheme)
    top = np.abs(groups).max(axis=1)
    step = max(1, CHUNK // (levels * BINS_A_LEVEL))
    parts = [(groups[i : i + step], top[i : i + step]) for i in range(0, len(groups), step)]
    cut = np.concatenate([best_cut(histograms(part, high, levels * BINS_A_LEVEL), levels) for part, high in parts])
    return clipped(groups, (top * cut / BINS_A_LEVEL).astype(np.float32), scheme, (weights.shape[0], weights.shape[1]))


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


def best_cut(counts: Doubles, levels: int) -> npt.NDArray[np.int64]:
    """(groups, levels * n) counts -> (groups,) bins a level up to the best cut, 1 to n."""
    total, beyond = counts.sum(axis=1), counts[:, ::-1].cumsum(axis=1)[:, ::-1]
    widest = counts.shape[1] // levels
    best, least = np.full(len(counts), widest), np.full(len(counts), np.inf)
    for k in range(widest, 0, -1):
        end = k * levels
        kept = counts[:, :end].reshape(len(counts), levels, k)
        filled = (kept > 0).sum(axis=2, keepdims=True)
        q = np.where(kept > 0, kept.sum(axis=2, keepdims=True) / np.maximum(filled, 1), 0).reshape(len(counts), end)
        p = counts[:, :end].copy()
        p[:, -1] = beyond[:, end - 1]
        q[:, -1] = np.where((p[:, -1] > 0) & (q[:, -1] == 0), EPSILON, q[:, -1])
        divergence = _divergence(p, q, total)
        better = divergence < least - 1e-12
        best[better], least[better] = k, divergence[better]
    return best


def _divergence(p: Doubles, q: Doubles, total: Doubles) -> Doubles:
    """(groups,), p of sum `total` and q brought to it; q is nowhere 0 where p is not."""
    ratio = np.where(p > 0, p / np.where(q > 0, q, 1), 1) * (q.sum(axis=1) / total)[:, None]
    return np.asarray((p * np.log(ratio)).sum(axis=1) / total)


def best_cut_reference(counts: Doubles, levels: int) -> int:
    """The slow twin of `best_cut`, of one histogram, bin by bin."""
    best, least = BINS_A_LEVEL, np.inf
    for k in range(BINS_A_LEVEL, 0, -1):
        end = k * levels
        p = [float(count) for count in counts[:end]]
        p[-1] += float(counts[end:].sum())
        q = [0.0] * end
        for level in range(levels):
            bins = [index for index in range(level * k, level * k + k) if counts[index] > 0]
            for index in bins:
                q[index] = float(sum(counts[i] for i in bins)) / len(bins)
        if p[-1] > 0 and q[-1] == 0:
            q[-1] = EPSILON
        pairs = [(p_bin / sum(p), q_bin / sum(q)) for p_bin, q_bin in zip(p, q, strict=True) if p_bin > 0]
        divergence = sum(p_share * np.log(p_share / q_share) for p_share, q_share in pairs)
        if divergence < least - 1e-12:
            best, least = k, divergence
    return best
