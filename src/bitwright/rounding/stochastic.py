"""Stochastic rounding: up or down by chance, so that the mean over many draws is the weight itself. No data.

P(up) = how far the weight lies above the level below it, in steps (Gupta et al. 2015, arXiv:1502.02551). Each single
weight is worse off than with nearest rounding; sums over many are unbiased, which is what training and dithering need.
The draws are fixed by the weights, so the same weights give the same codes.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

from bitwright.core import QTensor, Scheme
from bitwright.fitting import Fit
from bitwright.formats import FORMATS
from bitwright.formats.checks import require_finite
from bitwright.formats.uniform import Uniform
from bitwright.rounding.nearest import nearest

Floats = npt.NDArray[np.float32]


def stochastic(weights: Floats, scheme: Scheme, fit: Fit) -> QTensor:
    """(rows, columns) float32 -> QTensor of the same shape. Raises as `nearest` does."""
    values = require_finite(weights)
    grid = FORMATS[scheme.format]
    if not grid.scaled:
        return nearest(weights, scheme, fit)
    groups = values.reshape(-1, scheme.group_size(values.shape))
    params = fit(values, scheme)
    random = np.random.default_rng(zlib.crc32(np.ascontiguousarray(values).data))
    draws = random.random(groups.shape, np.float32)
    scaled = groups / params.scale[:, None]
    if isinstance(grid, Uniform):
        zero_point = np.float32(0) if params.zero_point is None else params.zero_point[:, None]
        levels = np.clip(np.floor(scaled + draws) + zero_point, grid.lowest, grid.highest)
        codes = (levels - np.float32(grid.lowest)).astype(np.uint8)
    else:
        codes = between_levels(scaled, draws, grid.decode(np.arange(1 << grid.bits, dtype=np.uint8)))
    return QTensor(codes.reshape(values.shape), params, scheme)


def between_levels(x: Floats, draws: Floats, levels: Floats) -> npt.NDArray[np.uint8]:
    """Codes of the level below or above each x, by chance; `levels` are those of the codes 0, 1, ..., in any order."""
    order = np.argsort(levels, kind="stable")
    table = levels[order]
    above = np.clip(np.searchsorted(table, x, side="right"), 1, len(table) - 1)
    low, high = table[above - 1], table[above]
    step = np.where(high > low, high - low, np.float32(1))
    up = draws < (x - low) / step
    return order[np.where(up, above, above - 1)].astype(np.uint8)
