"""HQQ: a robust grid, by a half-quadratic solve in which a few large errors count for less. No data, no search.

Minimise sum |x - Q(x)|^p, p = .7, with an auxiliary e for the errors. From the min-max grid on, q the level of x less the whole
zero point, beta = 10 and growing by 1 % a step:

    e = shrink(x / scale - q),  shrink(v) = sign(v) max(0, |v| - |v|^(p-1) / beta)
    affine: zero_point += mean(q - (x / scale - e))
    scale *= sum((x / scale - e) q) / sum(q^2)

After 20 steps each group keeps the grid, of all 21 it passed through, of least sum |x - Q(x)|^p. Badri and Shaji 2023,
mobiusml.github.io/hqq_blog, whose solver differs in this:

    it moves real zero points and holds the scale. Schemes here store whole ones, levels, and a step moves them by half at most
        where nothing is clipped: rounded every time they would stay, so what they move by adds up unrounded, and the scale
        is solved for, too.
    its errors are in units of the weights; in steps of the grid, beta = 10 suits weights of any size.
    it stops once the mean |x - Q(x)| of the matrix falls no further, and keeps the last grid. A group may get worse while
        the matrix gets better, so here each keeps its best.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitwright.core import QParams, Scheme
from bitwright.fitting.finish import finish
from bitwright.fitting.measure import Measure
from bitwright.fitting.minmax import params_of_range
from bitwright.formats import FORMATS
from bitwright.formats.scales import SHARED, round_scale
from bitwright.formats.uniform import Uniform

POWER, BETA, GROWTH, STEPS = 0.7, 10.0, 1.01, 20

Floats = npt.NDArray[np.float32]


def hqq(weights: Floats, scheme: Scheme) -> QParams:
    """(rows, columns) float32 -> one scale (and zero point) a group."""
    groups = weights.reshape(-1, scheme.group_size(weights.shape))
    low, high = groups.min(axis=1), groups.max(axis=1)
    start = params_of_range(low, high, scheme)
    scale = np.where(start.scale == 0, np.float32(1), start.scale).astype(np.float32)
    zero_point = np.zeros_like(scale) if start.zero_point is None else start.zero_point.copy()
    best, best_scale, best_zero = np.full(len(groups), np.inf, np.float32), scale, zero_point
    for step in range(STEPS + 1):
        whole = np.rint(zero_point)
        levels = nearest_levels(groups / scale[:, None], whole[:, None], scheme)
        error = groups / scale[:, None] - levels  # in steps of the grid
        cost = (np.abs(error) ** np.float32(POWER)).sum(axis=1) * np.abs(scale) ** np.float32(POWER)
        better = cost < best
        best = np.where(better, cost, best)
        best_scale, best_zero = np.where(better, scale, best_scale), np.where(better, whole, best_zero)
        wanted = groups / scale[:, None] - shrink(error, BETA * GROWTH**step)
        if scheme.affine:
            grid = FORMATS[scheme.format]
            assert isinstance(grid, Uniform)
            zero_point = np.clip(zero_point + (levels - wanted).mean(axis=1), grid.lowest, grid.highest)
        squares = (levels * levels).sum(axis=1)
        factor = (wanted * levels).sum(axis=1) / np.where(squares > 0, squares, 1)
        scale = stored((scale * np.where(factor != 0, factor, 1)).astype(np.float32), scheme)
    params = QParams(best_scale.astype(np.float32), best_zero.astype(np.float32) if scheme.affine else None)
    return finish(groups, params, Measure(scheme, (weights.shape[0], weights.shape[1])))


def nearest_levels(x: Floats, zero_point: Floats, scheme: Scheme) -> Floats:
    """The level nearest to each x, zero points taken off."""
    grid = FORMATS[scheme.format]
    if isinstance(grid, Uniform):
        levels: Floats = np.clip(np.rint(x) + zero_point, grid.lowest, grid.highest) - zero_point
        return levels
    return np.asarray(grid.decode(grid.encode(x)), np.float32)


def stored(scale: Floats, scheme: Scheme) -> Floats:
    """Scales as their type holds them; those that are to be multiples of one are made so at the end."""
    return scale if scheme.scale in SHARED else round_scale(scale, scheme.scale)


def shrink(x: Floats, beta: float) -> Floats:
    """The proximal step of |x|^p: small values to zero, large ones a little smaller."""
    size = np.maximum(np.abs(x), np.float32(1e-12))
    shrunk: Floats = np.sign(x) * np.maximum(0, size - size ** np.float32(POWER - 1) / np.float32(beta))
    return shrunk
