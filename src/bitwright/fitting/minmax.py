"""Min-max: the grid spans all values, nothing is clipped.

Symmetric: scale = max|x| / (2^(b-1) - 1). Affine: scale = (max - min) / (2^b - 1) over a range that includes zero,
zero_point = lowest - round(min / scale), so that zero itself is a level (Jacob et al. 2018, arXiv:1712.05877).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitwright.core import QParams, Scheme
from bitwright.fitting.row_scales import row_scales
from bitwright.formats import FORMATS
from bitwright.formats.scales import round_scale
from bitwright.formats.uniform import Uniform


def minmax(weights: npt.NDArray[np.float32], scheme: Scheme) -> QParams:
    """(rows, columns) float32 -> one scale (and zero point) a group."""
    grid = FORMATS[scheme.format]
    assert isinstance(grid, Uniform)
    groups = weights.reshape(-1, scheme.group_size(weights.shape))
    low, high = groups.min(axis=1), groups.max(axis=1)
    if scheme.affine:
        return affine_params(np.minimum(low, 0), np.maximum(high, 0), scheme)
    bound = np.maximum(-low, high)
    scale = bound / np.float32(grid.highest)
    if scheme.scale == "pow2":  # the next power of two up: the nearest one could clip the largest value
        scale = next_power_of_two(np.maximum(scale, np.float32(2.0**-126)))
    if scheme.scale == "row5":
        return row_scales(groups, scale.astype(np.float32), len(weights), scheme)
    return QParams(round_scale(scale.astype(np.float32), scheme.scale))


def next_power_of_two(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The least power of two that is not below x, for x > 0."""
    mantissa, exponent = np.frexp(x)  # mantissa in [0.5, 1)
    return np.ldexp(np.float32(1), np.where(mantissa > 0.5, exponent, exponent - 1)).astype(np.float32)


def affine_params(low: npt.NDArray[np.float32], high: npt.NDArray[np.float32], scheme: Scheme) -> QParams:
    """The affine grid over [low, high], low <= 0 <= high."""
    grid = FORMATS[scheme.format]
    assert isinstance(grid, Uniform)
    scale = round_scale(((high - low) / np.float32(grid.highest - grid.lowest)).astype(np.float32), scheme.scale)
    zero_point = np.clip(grid.lowest - np.rint(low / scale), grid.lowest, grid.highest)
    return QParams(scale, zero_point.astype(np.float32))
