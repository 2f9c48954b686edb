"""The fitted grids of a matrix seen row by row and column by column, for methods that round one column at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from bitwright import _native
from bitwright.core import QParams, QTensor, Scheme
from bitwright.fitting import Fit
from bitwright.formats import FORMATS
from bitwright.formats.table import Ordering, Table, decode_with
from bitwright.formats.uniform import Uniform

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]
Sorted = tuple[Floats, Floats, Codes]  # thresholds (tables, n - 1), levels and codes (tables, n)


@dataclass(frozen=True, eq=False)
class Grids:
    """One grid for each row and each of its groups.

    `scale`, `zero_point`  (rows, groups) float32; zero points are 0 in symmetric schemes
    `group_of`             (columns,) int32, the group of each column
    """

    scheme: Scheme
    params: QParams
    scale: Floats
    zero_point: Floats
    group_of: npt.NDArray[np.int32]

    @classmethod
    def fitted(cls, weights: Floats, scheme: Scheme, fit: Fit) -> Grids:
        """Grids that `fit` finds for the weights as they are."""
        return cls.of(fit(weights, scheme), weights.shape, scheme)

    @classmethod
    def of(cls, params: QParams, shape: tuple[int, ...], scheme: Scheme) -> Grids:
        rows, columns = shape
        size = min(scheme.group_size(shape), columns)  # a whole tensor's grid is each row's grid

        def by_row(x: Floats) -> Floats:
            return np.ascontiguousarray(np.broadcast_to(x.reshape(-1, columns // size), (rows, columns // size)))

        zero_point = np.zeros_like(params.scale) if params.zero_point is None else params.zero_point
        group_of = (np.arange(columns) // size).astype(np.int32)
        return cls(scheme, params, by_row(params.scale), by_row(zero_point), group_of)

    @property
    def uniform(self) -> Uniform | None:
        """The even grid; None for formats given by a table."""
        grid = FORMATS[self.scheme.format]
        return grid if isinstance(grid, Uniform) else None

    @property
    def tables(self) -> Floats | None:
        """(1, rows or groups, 2^bits) level of each code, learned or the format's own; None where the grid is even."""
        grid = FORMATS[self.scheme.format]
        return (grid.table if self.params.table is None else self.params.table) if isinstance(grid, Table) else None

    @cached_property
    def ordering(self) -> Ordering:
        """The tables in ascending order."""
        assert self.tables is not None
        return Ordering.of(self.tables)

    @property
    def native(self) -> tuple[Sorted | None, int, int]:
        """What native code is told of the levels: sorted tables or None, and the ends of an even grid."""
        if self.uniform is not None:
            return None, self.uniform.lowest, self.uniform.highest
        return (self.ordering.thresholds, self.ordering.levels, np.ascontiguousarray(self.ordering.codes)), 0, 0

    def serving(self, column: int, count: int) -> slice:
        """Which of `count` tables serve the rows of this column: the one there is, or one for each row."""
        a_row = max(1, count // len(self.scale))
        return slice(int(self.group_of[column]) % a_row, None, a_row)

    def encode(self, x: Floats, column: int) -> Codes:
        """(rows,) weights of one column to codes: nearest level, ties to even."""
        scale, zero_point = self.scale[:, self.group_of[column]], self.zero_point[:, self.group_of[column]]
        if self.uniform is None:
            order, part = self.ordering, self.serving(column, len(self.ordering.levels))
            return _native.encode_tables(
                np.ascontiguousarray(x[:, None]),
                np.ascontiguousarray(scale),
                np.ascontiguousarray(order.thresholds[part]),
                np.ascontiguousarray(order.levels[part]),
                np.ascontiguousarray(order.codes[part]),
            )[:, 0]
        levels = np.clip(np.rint(x / scale) + zero_point, self.uniform.lowest, self.uniform.highest)
        return np.asarray(levels - np.float32(self.uniform.lowest), np.uint8)

    def decode(self, codes: Codes, column: int) -> Floats:
        """(rows,) codes of one column to the weights they stand for."""
        levels = self._levels(codes, None if self.tables is None else self.tables[self.serving(column, len(self.tables))])
        values: Floats = (levels - self.zero_point[:, self.group_of[column]]) * self.scale[:, self.group_of[column]]
        return values

    def levels(self, codes: Codes) -> Floats:
        """(rows, columns) codes to levels, zero points taken off: what the scales multiply."""
        levels: Floats = self._levels(codes, self.tables) - self.zero_point[:, self.group_of]
        return levels

    def _levels(self, codes: Codes, tables: Floats | None) -> Floats:
        return FORMATS[self.scheme.format].decode(codes) if tables is None else decode_with(tables, codes)

    def values(self, codes: Codes) -> Floats:
        """(rows, columns) codes to the weights they stand for."""
        values: Floats = self.levels(codes) * self.scale[:, self.group_of]
        return values

    def with_scale(self, scale: Floats, row_scale: Floats | None = None) -> Grids:
        """The same grids at other scales, (rows, groups); for a whole tensor's grid they must all be equal.

        `row_scale` (rows,) is what they are multiples of, where it changes, too.
        """
        row_scale = self.params.row_scale if row_scale is None else row_scale
        params = replace(self.params, scale=scale.reshape(-1)[: len(self.params.scale)], row_scale=row_scale)
        return replace(self, params=params, scale=np.ascontiguousarray(scale))

    def with_table(self, table: Floats) -> Grids:
        """The same grids with other levels, of the shape of those that were learned."""
        return replace(self, params=replace(self.params, table=table))

    def of_rows(self, step: int) -> Grids:
        """Those of every so many rows; levels of their own are not theirs alone."""
        return replace(self, scale=self.scale[::step], zero_point=self.zero_point[::step])

    def taking(self, other: Grids, rows: npt.NDArray[np.bool_]) -> Grids:
        """The scales, and levels of their own, of `other` where `rows` (rows,) says so."""

        def merged(own: Floats | None, new: Floats | None) -> Floats | None:
            return own if own is None or new is None or len(own) != len(rows) else np.where(mask_of(own), new, own)

        def mask_of(x: Floats) -> npt.NDArray[np.bool_]:
            return rows.reshape(-1, *[1] * (x.ndim - 1))

        taken = self.with_scale(np.where(mask_of(self.scale), other.scale, self.scale))
        shared = merged(self.params.row_scale, other.params.row_scale)
        table = merged(self.params.table, other.params.table)
        return replace(taken, params=replace(taken.params, row_scale=shared, table=table))

    def tensor(self, codes: Codes) -> QTensor:
        return QTensor(codes, self.params, self.scheme)
