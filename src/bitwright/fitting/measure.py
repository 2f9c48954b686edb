"""How far groups of weights are from a candidate grid: the sum of squared errors, columns weighed by their importance.

With H the second moments of a layer's inputs, the output error of a change E of the weights is trace(E H E^T) a token; with
H's diagonal alone it is the sum over columns j of H_jj E_ij^2, which is what the importance of a column stands for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from bitwright import _native
from bitwright.core import QParams, Scheme
from bitwright.formats import FORMATS
from bitwright.formats.table import Ordering, Table
from bitwright.formats.uniform import Uniform

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Measure:
    """For a matrix of `shape` stored as `scheme`; `importance` (columns,) >= 0; `table` (tables, 2^bits) if learned."""

    scheme: Scheme
    shape: tuple[int, int]
    importance: Floats | None = None
    table: Floats | None = None

    def with_table(self, table: Floats | None) -> Measure:
        return replace(self, table=table)

    @cached_property
    def ordering(self) -> Ordering:
        """Of the learned tables, of the format's own, or of the integers that a uniform format stands for."""
        grid = FORMATS[self.scheme.format]
        if self.table is not None:
            return Ordering.of(self.table)
        if isinstance(grid, Table):
            return grid.ordering
        assert isinstance(grid, Uniform)
        return Ordering.of(np.arange(grid.lowest, grid.highest + 1, dtype=np.float32)[None, :])

    @cached_property
    def weights(self) -> Floats | None:
        """(groups a row * group size,): the importance of the columns of a row of groups, or of the whole tensor."""
        if self.importance is None:
            return None
        weights = np.ascontiguousarray(self.importance, np.float32)
        return np.tile(weights, self.shape[0]) if self.scheme.group == -1 else weights

    def error(self, groups: Floats, scale: Floats, zero_point: Floats | None = None) -> Floats:
        """(groups,) squared errors after nearest rounding."""
        grid = FORMATS[self.scheme.format]
        if isinstance(grid, Uniform) and self.weights is None:
            offset = np.zeros_like(scale) if zero_point is None else zero_point
            return _native.squared_error(groups, scale, offset, grid.lowest, grid.highest)
        if zero_point is not None:
            difference = self.levels(groups, scale, zero_point) * scale[:, None] - groups
            return np.asarray((difference**2 * self.weights_of(groups)).sum(axis=1), np.float32)
        order = self.ordering
        return _native.table_error(groups, scale, order.thresholds, order.levels, order.codes, self.weights)

    def encode(self, groups: Floats, params: QParams) -> Codes:
        """Codes of the nearest levels."""
        grid = FORMATS[self.scheme.format]
        if isinstance(grid, Uniform):
            zero_point = np.zeros_like(params.scale) if params.zero_point is None else params.zero_point
            return _native.encode_groups(groups, params.scale, zero_point, grid.lowest, grid.highest)
        order = self.with_table(params.table).ordering
        return _native.encode_tables(groups, params.scale, order.thresholds, order.levels, order.codes)

    def levels(self, groups: Floats, scale: Floats, zero_point: Floats | None = None) -> Floats:
        """Nearest levels less the zero point."""
        grid = FORMATS[self.scheme.format]
        if isinstance(grid, Uniform):
            offset = np.float32(0) if zero_point is None else zero_point[:, None]
            return np.asarray(np.clip(np.rint(groups / scale[:, None]) + offset, grid.lowest, grid.highest) - offset)
        order = self.ordering
        ascending = np.broadcast_to(np.arange(order.levels.shape[1], dtype=np.uint8), order.levels.shape)
        place = _native.encode_tables(groups, scale, order.thresholds, order.levels, np.ascontiguousarray(ascending))
        shares = place.reshape(len(order.levels), -1).astype(np.intp)
        return np.take_along_axis(order.levels, shares, axis=1).reshape(groups.shape)

    def refit(self, groups: Floats, scale: Floats, zero_point: Floats | None = None) -> Floats:
        """The scale of least error for the levels that the given one picks; the given one where all of them are zero."""
        grid = FORMATS[self.scheme.format]
        if isinstance(grid, Uniform) and self.weights is None:
            offset = np.zeros_like(scale) if zero_point is None else zero_point
            return _native.refit_scale(groups, scale, offset, grid.lowest, grid.highest)
        levels, weights = self.levels(groups, scale, zero_point), self.weights_of(groups)
        products = (groups * levels * weights).sum(axis=1, dtype=np.float64)
        squares = (levels * levels * weights).sum(axis=1, dtype=np.float64)
        useful = (squares > 0) & (products != 0)
        return np.where(useful, products / np.where(useful, squares, 1), scale).astype(np.float32)

    def weights_of(self, groups: Floats) -> Floats:
        """Importances in the shape of the groups, or 1."""
        if self.weights is None:
            return np.ones((1, 1), np.float32)
        return np.tile(self.weights.reshape(-1, groups.shape[1]), (len(groups) * groups.shape[1] // self.weights.size, 1))
