"""HQQ: a robust grid, by a half-quadratic solve in which a few large errors count for less. No data, no search.

Badri and Shaji 2023, mobiusml.github.io/hqq_blog. Minimise sum |x - Q(x)|^p, p = .7, with an auxiliary e for the errors:

    e = shrink(x - Q(x)),  shrink(v) = sign(v) max(0, |v| - |v|^(p-1) / beta)
    affine: zero_point = mean(level - (x - e) / scale)
    scale = sum((x - e) (level - zero_point)) / sum((level - zero_point)^2)

in turn, from the min-max grid on, beta growing by 1 % a step. The authors hold the scale fixed and keep real zero points;
schemes here store whole ones, which alone would hardly ever move, so the scale is solved for, too. Errors are measured in
steps of the grid, so that beta = 10 suits weights of any size. Of all grids passed through, the one of least
sum |x - Q(x)|^p is kept.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitwright.core import QParams, Scheme
from bitwright.fitting.minmax import minmax
from bitwright.formats import FORMATS
from bitwright.formats.scales import round_scale
from bitwright.formats.uniform import Uniform

POWER, BETA, GROWTH, STEPS = 0.7, 10.0, 1.01, 20

Groups = npt.NDArray[np.float32]


def hqq(groups: Groups, scheme: Scheme) -> QParams:
    """(groups, group size) float32 -> one scale (and zero point) a group."""
    grid = FORMATS[scheme.format]
    assert isinstance(grid, Uniform)
    start = minmax(groups, scheme)
    scale = start.scale.copy()
    zero_point = np.zeros_like(scale) if start.zero_point is None else start.zero_point.copy()
    best, best_scale, best_zero = np.full(len(groups), np.inf, np.float32), scale, zero_point
    for step in range(STEPS + 1):
        whole = np.clip(np.rint(zero_point), grid.lowest, grid.highest)
        levels = np.clip(np.rint(groups / scale[:, None]) + whole[:, None], grid.lowest, grid.highest) - whole[:, None]
        error = groups / scale[:, None] - levels  # in steps of the grid
        cost = (np.abs(error) ** np.float32(POWER)).sum(axis=1) * np.abs(scale) ** np.float32(POWER)
        better = cost < best
        best = np.where(better, cost, best)
        best_scale, best_zero = np.where(better, scale, best_scale), np.where(better, whole, best_zero)
        wanted = groups / scale[:, None] - shrink(error, BETA * GROWTH**step)
        if scheme.affine:
            zero_point = zero_point + (levels - wanted).mean(axis=1)
        squares = (levels * levels).sum(axis=1)
        factor = (wanted * levels).sum(axis=1) / np.where(squares > 0, squares, 1)
        scale = round_scale((scale * np.where(factor != 0, factor, 1)).astype(np.float32), scheme.scale)
    return QParams(best_scale.astype(np.float32), best_zero.astype(np.float32) if scheme.affine else None)


def shrink(x: Groups, beta: float) -> Groups:
    """The proximal step of |x|^p: small values to zero, large ones a little smaller."""
    size = np.maximum(np.abs(x), np.float32(1e-12))
    shrunk: Groups = np.sign(x) * np.maximum(0, size - size ** np.float32(POWER - 1) / np.float32(beta))
    return shrunk
