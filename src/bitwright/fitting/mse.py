"""MSE fitting: the grid with the least squared error, by search and least-squares refit.

For each group, candidates shrink the min-max range step by step; symmetric grids are tried with both signs of the
scale, because the grid has one more level below zero than above and the heavier tail should get it. The best
candidate's scale is then refitted in closed form, s = sum(x q) / sum(q^2), and kept where that lowers the error.
The search with shrink factors is that of AWQ's clipping and of AutoRound's starting grid (arXiv:2306.00978, 2309.05516).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitwright import _native
from bitwright.core import QParams, Scheme
from bitwright.fitting.minmax import affine_params, next_power_of_two
from bitwright.fitting.row_scales import row_scales
from bitwright.formats import FORMATS
from bitwright.formats.scales import round_scale, store_scale
from bitwright.formats.uniform import Uniform

SHRINK = np.array([1.0 - 0.04 * step for step in range(19)], np.float32)  # 1 .. 0.28
REFITS = 2
POWERS = 4  # powers of two tried, from the widest grid down

Groups = npt.NDArray[np.float32]


def mse(weights: Groups, scheme: Scheme) -> QParams:
    """(rows, columns) float32 -> one scale (and zero point) a group, of least squared error among candidates.

    Raises `SchemeError` where a scale is beyond its type's range.
    """
    grid, groups = FORMATS[scheme.format], weights.reshape(-1, scheme.group_size(weights.shape))
    assert isinstance(grid, Uniform)
    shared = scheme.scale == "row5"  # whose own rounding comes after
    kind = "fp32" if shared else scheme.scale
    scale, zero_point = _native.fit_mse(groups, SHRINK, REFITS, grid.lowest, grid.highest, scheme.affine, kind)
    if shared:
        return row_scales(groups, scale, len(weights), scheme)
    store_scale(scale, scheme.scale)  # refuses what overflowed
    return QParams(scale, zero_point if scheme.affine else None)


def mse_reference(weights: Groups, scheme: Scheme) -> QParams:
    """The slow twin of `mse`: one pass over all groups for each candidate. (That of row5 is `row_scales_reference`.)"""
    grid, groups = FORMATS[scheme.format], weights.reshape(-1, scheme.group_size(weights.shape))
    assert isinstance(grid, Uniform)
    best = np.full(groups.shape[0], np.inf, np.float32)
    scale = np.zeros(groups.shape[0], np.float32)
    zero_point = np.zeros(groups.shape[0], np.float32)
    low, high = groups.min(axis=1), groups.max(axis=1)
    for candidate in candidates(low, high, scheme):
        _keep_better(groups, candidate, grid, (best, scale, zero_point))
    for _ in range(REFITS if scheme.scale != "pow2" else 0):
        refit = _native.refit_scale(groups, scale, zero_point, grid.lowest, grid.highest)
        _keep_better(groups, QParams(round_scale(refit, scheme.scale), zero_point), grid, (best, scale, zero_point))
    return QParams(scale, zero_point if scheme.affine else None)


def candidates(low: Groups, high: Groups, scheme: Scheme) -> list[QParams]:
    """The grids that are tried, widest first, for groups whose smallest and largest values are given."""
    grid = FORMATS[scheme.format]
    assert isinstance(grid, Uniform)
    if scheme.affine:
        return [affine_params(np.minimum(low, 0) * f, np.maximum(high, 0) * f, scheme) for f in SHRINK]
    widest = (np.maximum(-low, high) / np.float32(grid.highest)).astype(np.float32)
    if scheme.scale == "pow2":
        top = next_power_of_two(np.maximum(widest, np.float32(2.0**-120)))
        return [QParams((top * np.float32(2.0**-step)).astype(np.float32)) for step in range(POWERS)]
    return [QParams(round_scale(sign * widest * f, scheme.scale)) for f in SHRINK for sign in (np.float32(1), np.float32(-1))]


def _keep_better(groups: Groups, candidate: QParams, grid: Uniform, state: tuple[Groups, Groups, Groups]) -> None:
    best, scale, zero_point = state
    offset = np.zeros_like(scale) if candidate.zero_point is None else candidate.zero_point
    error = _native.squared_error(groups, candidate.scale, offset, grid.lowest, grid.highest)
    better = error < best
    best[better] = error[better]
    scale[better] = candidate.scale[better]
    zero_point[better] = offset[better]
