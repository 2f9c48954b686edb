"""MSE fitting: the grid with the least squared error, by search and least-squares refit.

For each group, candidates shrink the min-max range step by step; symmetric grids are tried with both signs of the
scale, because the grid has one more level below zero than above and the heavier tail should get it. The best
candidate's scale is then refitted in closed form, s = sum(x q) / sum(q^2), and kept where that lowers the error.
The search with shrink factors is that of AWQ's clipping and of AutoRound's starting grid (arXiv:2306.00978, 2309.05516).
A table that is learned is learned for the widest grids, then for those that the search finds with it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitwright import _native
from bitwright.core import QParams, Scheme
from bitwright.fitting.finish import finish
from bitwright.fitting.learning import learn_table
from bitwright.fitting.measure import Measure
from bitwright.fitting.minmax import affine_params, next_power_of_two, params_of_range, reach
from bitwright.formats import FORMATS
from bitwright.formats.scales import SHARED, round_scale, store_scale
from bitwright.formats.table import Table
from bitwright.formats.uniform import Uniform

SHRINK = np.array([1.0 - 0.04 * step for step in range(19)], np.float32)  # 1 .. 0.28
REFITS = 2
LARGEST_HALF = np.float32(65504)
POWERS = 4  # powers of two tried, from the widest grid down

Groups = npt.NDArray[np.float32]


def mse(weights: Groups, scheme: Scheme) -> QParams:
    """(rows, columns) float32 -> one scale (and zero point) a group, of least squared error among candidates.

    Raises `SchemeError` where a scale is beyond its type's range.
    """
    grid, groups = FORMATS[scheme.format], weights.reshape(-1, scheme.group_size(weights.shape))
    measure = Measure(scheme, (weights.shape[0], weights.shape[1]))
    if not isinstance(grid, Uniform):
        return finish(groups, search(groups, measure), measure)
    kind = own_kind(scheme)
    scale, zero_point = _native.fit_mse(groups, SHRINK, REFITS, grid.lowest, grid.highest, scheme.affine, kind)
    store_scale(scale, kind)  # refuses what overflowed
    return finish(groups, QParams(scale, zero_point if scheme.affine else None), measure)


def mse_reference(weights: Groups, scheme: Scheme) -> QParams:
    """The slow twin of `mse`: one pass over all groups for each candidate."""
    groups, measure = weights.reshape(-1, scheme.group_size(weights.shape)), Measure(scheme, (weights.shape[0], weights.shape[1]))
    return finish(groups, search(groups, measure), measure)


def own_kind(scheme: Scheme) -> str:
    """How a scale is rounded while it is searched for. What becomes a multiple is rounded after that."""
    return "fp32" if scheme.scale in SHARED else scheme.scale


def search(groups: Groups, measure: Measure) -> QParams:
    """The best grid for each group. Raises `SchemeError` where a scale is beyond its type's range."""
    low, high = groups.min(axis=1), groups.max(axis=1)
    widest = params_of_range(low, high, measure.scheme)
    if measure.scheme.scale == "e4m3":
        return widest  # whose search is that for the multiple
    table = learn_table(groups, widest.scale, measure)
    found = _search(groups, candidates(low, high, measure.scheme), measure.with_table(table))
    if table is None:
        return found
    return QParams(found.scale, None, None, learn_table(groups, found.scale, measure))


def _search(groups: Groups, tried: list[QParams], measure: Measure) -> QParams:
    scheme, count = measure.scheme, len(groups)
    best = np.full(count, np.inf, np.float32)
    scale, zero_point = np.full(count, np.inf, np.float32), np.zeros(count, np.float32)
    state = (best, scale, zero_point)
    for candidate in tried:
        _keep_better(groups, candidate, measure, state)
    store_scale(scale, own_kind(scheme))  # refuses what overflowed
    for _ in range(REFITS if scheme.scale != "pow2" else 0):
        refit = measure.refit(groups, scale, zero_point if scheme.affine else None)
        if own_kind(scheme) == "fp16":
            refit = np.clip(refit, -LARGEST_HALF, LARGEST_HALF)
        refitted = QParams(round_scale(refit, own_kind(scheme)), zero_point.copy() if scheme.affine else None)
        _keep_better(groups, refitted, measure, state)
    return QParams(scale, zero_point if scheme.affine else None)


def candidates(low: Groups, high: Groups, scheme: Scheme) -> list[QParams]:
    """The grids that are tried, widest first, for groups whose smallest and largest values are given."""
    if scheme.affine:
        return [affine_params(np.minimum(low, 0) * f, np.maximum(high, 0) * f, scheme) for f in SHRINK]
    widest = (np.maximum(-low, high) / np.float32(reach(scheme))).astype(np.float32)
    if scheme.scale == "pow2":
        top = next_power_of_two(np.maximum(widest, np.float32(2.0**-120)))
        return [QParams((top * np.float32(2.0**-step)).astype(np.float32)) for step in range(POWERS)]
    grid = FORMATS[scheme.format]
    signs = (1,) if isinstance(grid, Table) and grid.symmetric else (1, -1)
    return [QParams(round_scale(np.float32(sign) * widest * f, own_kind(scheme))) for f in SHRINK for sign in signs]


def _keep_better(groups: Groups, candidate: QParams, measure: Measure, state: tuple[Groups, Groups, Groups]) -> None:
    best, scale, zero_point = state
    error = measure.error(groups, candidate.scale, candidate.zero_point)
    better = error < best
    best[better] = error[better]
    scale[better] = candidate.scale[better]
    if candidate.zero_point is not None:
        zero_point[better] = candidate.zero_point[better]
