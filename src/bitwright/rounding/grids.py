"""The fitted grids of a matrix seen row by row and column by column, for methods that round one column at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bitwright.core import Format, QParams, QTensor, Scheme
from bitwright.errors import SchemeError
from bitwright.fitting import Fit
from bitwright.formats import FORMATS
from bitwright.formats.table import Table
from bitwright.formats.uniform import Uniform

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]


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
        """The even grid, for which there is native code; None for other formats."""
        grid = FORMATS[self.scheme.format]
        return grid if isinstance(grid, Uniform) else None

    @property
    def grid(self) -> Format:
        """The levels, learned ones where the scheme learns them for the whole tensor. Raises `SchemeError` where it does for less."""
        grid, table = FORMATS[self.scheme.format], self.params.table
        if table is None or not isinstance(grid, Table):
            return grid
        if len(table) > 1:
            raise SchemeError(f"{self.scheme} has a table for each row or group; only nearest and stochastic round to it")
        return replace(grid, levels=tuple(float(level) for level in table[0]))

    def encode(self, x: Floats, column: int) -> Codes:
        """(rows,) weights of one column, or (rows, 1), to codes: nearest level, ties to even."""
        scale, zero_point = self.scale[:, self.group_of[column]], self.zero_point[:, self.group_of[column]]
        if self.uniform is None:
            return np.asarray(self.grid.encode(x / scale), np.uint8)
        levels = np.clip(np.rint(x / scale) + zero_point, self.uniform.lowest, self.uniform.highest)
        return np.asarray(levels - np.float32(self.uniform.lowest), np.uint8)

    def decode(self, codes: Codes, column: int) -> Floats:
        """(rows,) codes of one column to the weights they stand for."""
        levels = self.grid.decode(codes)
        values: Floats = (levels - self.zero_point[:, self.group_of[column]]) * self.scale[:, self.group_of[column]]
        return values

    def levels(self, codes: Codes) -> Floats:
        """(rows, columns) codes to levels, zero points taken off: what the scales multiply."""
        levels: Floats = self.grid.decode(codes) - self.zero_point[:, self.group_of]
        return levels

    def values(self, codes: Codes) -> Floats:
        """(rows, columns) codes to the weights they stand for."""
        values: Floats = self.levels(codes) * self.scale[:, self.group_of]
        return values

    def with_scale(self, scale: Floats) -> Grids:
        """The same grids at other scales, (rows, groups); for a whole tensor's grid they must all be equal."""
        flat = scale.reshape(-1)[: len(self.params.scale)]
        return replace(self, params=replace(self.params, scale=flat), scale=np.ascontiguousarray(scale))

    def tensor(self, codes: Codes) -> QTensor:
        return QTensor(codes, self.params, self.scheme)
