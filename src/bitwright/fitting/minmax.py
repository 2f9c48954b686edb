"""Min-max: the grid spans all values, nothing is clipped.

Symmetric: scale = max|x| / (2^(b-1) - 1), or over the largest level of a format given by a table. Affine:
scale = (max - min) / (2^b - 1) over a range that includes zero, zero_point = lowest - round(min / scale), so that zero
itself is a level (Jacob et al. 2018, arXiv:1712.05877).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitwright.core import QParams, Scheme
from bitwright.fitting.finish import finish
from bitwright.fitting.measure import Measure
from bitwright.formats import FORMATS
from bitwright.formats.scales import SHARED, round_scale
from bitwright.formats.table import Table
from bitwright.formats.uniform import Uniform

Floats = npt.NDArray[np.float32]


def minmax(weights: Floats, scheme: Scheme) -> QParams:
    """(rows, columns) float32 -> one scale (and zero point) a group."""
    groups = weights.reshape(-1, scheme.group_size(weights.shape))
    low, high = groups.min(axis=1), groups.max(axis=1)
    return finish(groups, params_of_range(low, high, scheme), Measure(scheme, (weights.shape[0], weights.shape[1])))


def params_of_range(low: Floats, high: Floats, scheme: Scheme) -> QParams:
    """(groups,) smallest and largest values -> the grids that span them, rounded unless the scales are to be multiples."""
    if scheme.affine:
        return affine_params(np.minimum(low, 0), np.maximum(high, 0), scheme)
    scale = (np.maximum(-low, high) / np.float32(reach(scheme))).astype(np.float32)
    if scheme.scale in SHARED:
        return QParams(scale)
    if scheme.scale == "pow2":  # the next power of two up: the nearest one could clip the largest value
        scale = next_power_of_two(np.maximum(scale, np.float32(2.0**-126)))
    return QParams(round_scale(scale, scheme.scale))


def reach(scheme: Scheme) -> float:
    """How far the levels go on either side of zero."""
    grid = FORMATS[scheme.format]
    assert isinstance(grid, Uniform | Table)
    return grid.highest if isinstance(grid, Uniform) else grid.largest


def next_power_of_two(x: Floats) -> Floats:
    """The least power of two that is not below x, for x > 0."""
    mantissa, exponent = np.frexp(x)  # mantissa in [0.5, 1)
    return np.ldexp(np.float32(1), np.where(mantissa > 0.5, exponent, exponent - 1)).astype(np.float32)


def affine_params(low: Floats, high: Floats, scheme: Scheme) -> QParams:
    """The affine grid over [low, high], low <= 0 <= high."""
    grid = FORMATS[scheme.format]
    assert isinstance(grid, Uniform)
    scale = round_scale(((high - low) / np.float32(grid.highest - grid.lowest)).astype(np.float32), scheme.scale)
    zero_point = np.clip(grid.lowest - np.rint(low / scale), grid.lowest, grid.highest)
    return QParams(scale, zero_point.astype(np.float32))
