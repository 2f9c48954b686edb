"""Stochastic rounding: up or down by chance, so that the mean over many draws is the weight itself. No data.

P(up) = how far the weight lies above the level below it, in steps (Gupta et al. 2015, arXiv:1502.02551). Each single
weight is worse off than with nearest rounding; sums over many are unbiased, which is what training and dithering need.
The draws are fixed by the weights, so the same weights give the same codes.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

from bitwright import _native
from bitwright.core import QTensor, Scheme
from bitwright.fitting import Fit
from bitwright.fitting.measure import Measure
from bitwright.formats import FORMATS
from bitwright.formats.checks import require_finite
from bitwright.formats.table import Ordering
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
        codes = between_levels(scaled, draws, Measure(scheme, (values.shape[0], values.shape[1]), None, params.table).ordering)
    return QTensor(codes.reshape(values.shape), params, scheme)


def between_levels(x: Floats, draws: Floats, order: Ordering) -> npt.NDArray[np.uint8]:
    """Codes of the level below or above each x (groups, n), by chance. Each table serves an equal share of the groups."""
    last = order.levels.shape[1] - 2  # of the levels that have one above
    places = np.broadcast_to(np.arange(last + 2, dtype=np.uint8), order.levels.shape)
    ones, above = np.ones(len(x), np.float32), np.ascontiguousarray(order.levels[:, 1:])  # an x goes up where it is above them
    place = _native.encode_tables(x, ones, above, order.levels, np.ascontiguousarray(places))
    shares = np.minimum(place, last).reshape(len(order.levels), -1).astype(np.intp)
    low, high = (np.take_along_axis(order.levels, shares + up, axis=1).reshape(x.shape) for up in (0, 1))
    chosen = shares.reshape(x.shape) + (draws < (x - low) / np.where(high > low, high - low, np.float32(1)))
    codes: npt.NDArray[np.uint8] = np.take_along_axis(order.codes, chosen.reshape(shares.shape), axis=1).reshape(x.shape)
    return codes
