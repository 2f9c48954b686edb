"""Scales that are whole multiples of their row's scale: from a group's own best scale s to m * r with m in -15 .. 15.

For several r around max|s| / 15, every group takes the better of the two multiples next to s / r, by its squared error, and
the row keeps the r of least error in all. m is never 0: a group of zeros needs a scale like any other.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitwright import _native
from bitwright.core import QParams, Scheme
from bitwright.formats import FORMATS
from bitwright.formats.scales import LARGEST_MULTIPLE, round_scale
from bitwright.formats.uniform import Uniform

# Row scales that are tried, over max|s| / 15: below 1 the largest scales are cut off, above 1 the top multiples go unused.
FACTORS = (0.86, 0.9, 0.94, 0.97, 1.0, 1.04, 1.08, 1.12)

Floats = npt.NDArray[np.float32]


def row_scales(groups: Floats, ideal: Floats, rows: int, scheme: Scheme) -> QParams:
    """(groups, group size) weights and (groups,) scales -> the multiples of one scale for each of `rows` rows.

    Raises `SchemeError` where a row's scale is beyond fp16.
    """
    grid = FORMATS[scheme.format]
    assert isinstance(grid, Uniform)
    by_row = ideal.reshape(rows, -1)
    top = np.abs(by_row).max(axis=1) / np.float32(LARGEST_MULTIPLE)
    least = np.full(rows, np.inf)
    row_scale, scale = np.ones(rows, np.float32), np.ones_like(by_row)
    for factor in FACTORS:
        candidate = round_scale(top * np.float32(factor), "row5")
        error, chosen = _better_multiple(groups, by_row, candidate, grid)
        better = error < least
        least[better], row_scale[better], scale[better] = error[better], candidate[better], chosen[better]
    return QParams(scale.reshape(-1), None, row_scale)


def _better_multiple(groups: Floats, ideal: Floats, row_scale: Floats, grid: Uniform) -> tuple[npt.NDArray[np.float64], Floats]:
    """(rows,) squared errors and (rows, groups a row) scales, each the better of two multiples."""
    below = np.floor(np.abs(ideal) / row_scale[:, None])
    zeros = np.zeros(ideal.size, np.float32)
    scales, errors = [], []
    for multiple in (below, below + 1):
        scale = np.copysign(np.clip(multiple, 1, LARGEST_MULTIPLE) * row_scale[:, None], ideal)
        error = _native.squared_error(groups, scale.reshape(-1), zeros, grid.lowest, grid.highest)
        scales.append(scale)
        errors.append(error.reshape(ideal.shape))
    best = np.where(errors[1] < errors[0], scales[1], scales[0])
    return np.minimum(errors[0], errors[1]).sum(axis=1, dtype=np.float64), best


def row_scales_reference(groups: Floats, ideal: Floats, rows: int, scheme: Scheme) -> QParams:
    """The slow twin of `row_scales`: one row, one candidate, one group, one multiple at a time."""
    grid = FORMATS[scheme.format]
    assert isinstance(grid, Uniform)
    groups_a_row = len(groups) // rows
    row_scale, scale = np.ones(rows, np.float32), np.ones(len(groups), np.float32)
    for row in range(rows):
        members = range(row * groups_a_row, (row + 1) * groups_a_row)
        top = np.float32(max(abs(ideal[index]) for index in members)) / np.float32(LARGEST_MULTIPLE)
        least = np.inf
        for factor in FACTORS:
            candidate = round_scale(np.array([top * np.float32(factor)]), "row5")
            chosen = [_best_of_two(groups[index : index + 1], ideal[index], candidate[0], grid) for index in members]
            error = sum(float(error) for error, _ in chosen)
            if error < least:
                least, row_scale[row] = error, candidate[0]
                scale[members.start : members.stop] = [found for _, found in chosen]
    return QParams(scale, None, row_scale)


def _best_of_two(group: Floats, ideal: np.float32, row_scale: np.float32, grid: Uniform) -> tuple[np.float32, np.float32]:
    """(squared error, scale) of one group."""
    below, found = int(np.abs(ideal) / row_scale), []
    for multiple in (below, below + 1):
        size = np.float32(min(max(multiple, 1), LARGEST_MULTIPLE)) * row_scale
        scale = np.array([size if ideal >= 0 else -size], np.float32)
        found.append((_native.squared_error(group, scale, np.zeros(1, np.float32), grid.lowest, grid.highest)[0], scale[0]))
    return found[1] if found[1][0] < found[0][0] else found[0]
