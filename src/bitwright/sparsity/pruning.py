"""Magnitude pruning: the smallest weights become zero, singly, in blocks, or m - n of every m.

A unit is a block of r x c weights, and its size the sum of their squares: dropping the smallest units of a pool then costs
the least squared error. Units are compared within a pool:

    0.5           half of the tensor's weights           block4x4:0.5  half of the tensor's 4 x 4 blocks
    row:0.5       half of each row's weights             2:4           2 of every 4 in a row are kept

Of equals the first go. Magnitudes: Han et al. 2015, arXiv:1506.02626; a share of each row: Wanda's comparison groups, Sun et
al. 2023, arXiv:2306.11695; n:m: Mishra et al. 2021, arXiv:2104.08378. Schedules for pruning bit by bit, while a model trains:
Zhu & Gupta 2017, arXiv:1710.01878.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from bitwright.errors import RecipeError
from bitwright.formats.checks import require_finite

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

TENSOR, ROW = -1, 0  # pools, spelled as a scheme's groups are
_SHARE = r"(?P<share>0?\.[0-9]{1,9}|0|1|1\.0)"
_SPELLING = re.compile(
    rf"(?P<kept>[0-9]{{1,3}}):(?P<of>[0-9]{{1,3}})|(row:|block(?P<rows>[0-9]{{1,4}})x(?P<columns>[0-9]{{1,4}}):)?{_SHARE}"
)


@dataclass(frozen=True)
class Pattern:
    """`share` of the units of each pool is pruned.

    `block`  rows and columns of a unit
    `pool`   TENSOR, ROW, or a number of consecutive columns
    """

    share: float
    block: tuple[int, int] = (1, 1)
    pool: int = TENSOR

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise RecipeError(f"the share that is pruned lies from 0 to 1, not at {self.share}")
        if min(self.block) < 1 or self.pool < -1:
            raise RecipeError(f"blocks and pools are of 1 weight at least, not {self.block} and {self.pool}")

    @classmethod
    def parse(cls, spelling: str) -> Self:
        """Raises `RecipeError` that shows the spellings."""
        match = _SPELLING.fullmatch(spelling.strip())
        if match is None:
            raise RecipeError(f"cannot read pruning {spelling!r}; write it like 0.5, row:0.5, block4x4:0.5 or 2:4")
        if match["of"] is not None:
            kept, of = int(match["kept"]), int(match["of"])
            if not 0 < kept <= of:
                raise RecipeError(f"{spelling} keeps none or more than there are; write it like 2:4, which keeps 2 of every 4")
            return cls(1 - kept / of, pool=of)
        block = (int(match["rows"]), int(match["columns"])) if match["rows"] else (1, 1)
        return cls(float(match["share"]), block, ROW if spelling.strip().startswith("row") else TENSOR)

    def check(self, shape: tuple[int, int]) -> None:
        """Raises `RecipeError` where blocks or pools do not divide a matrix of this shape."""
        (rows, columns), (block_rows, block_columns) = shape, self.block
        if rows % block_rows or columns % block_columns:
            raise RecipeError(f"blocks of {block_rows} x {block_columns} do not divide a matrix of {rows} x {columns}")
        if self.pool > 0 and (columns // block_columns) % self.pool:
            raise RecipeError(f"{self.pool} does not divide a row of {columns} columns; prune a share instead, such as row:0.5")


def mask(weights: Floats, pattern: Pattern, share: float | None = None) -> Mask:
    """(rows, columns), True where a weight is kept. `share`, where given, is pruned instead of the pattern's own.

    Raises `RecipeError` where the pattern does not divide the matrix, `NonFiniteError` on NaN or infinity.
    """
    (rows, columns), (r, c) = weights.shape, pattern.block
    pattern.check((rows, columns))
    squares = require_finite(weights).astype(np.float64) ** 2
    sizes = squares.reshape(rows // r, r, columns // c, c).sum(axis=(1, 3))
    pools = sizes.reshape({TENSOR: (1, -1), ROW: (rows // r, -1)}.get(pattern.pool, (-1, pattern.pool)))
    pruned = pruned_of_a_pool(pattern.share if share is None else share, pools.shape[1])
    kept = np.ones(pools.shape, np.bool_)
    np.put_along_axis(kept, np.argsort(pools, axis=1, kind="stable")[:, :pruned], False, axis=1)
    return kept.reshape(sizes.shape).repeat(r, axis=0).repeat(c, axis=1)


def pruned_of_a_pool(share: float, units: int) -> int:
    """To the nearest whole number, so that 2:4 prunes 2 and not 1.9999."""
    return round(share * units)


def mask_reference(weights: Floats, pattern: Pattern, share: float | None = None) -> Mask:
    """The slow twin of `mask`: one unit after the other."""
    (rows, columns), (r, c) = weights.shape, pattern.block
    pools: dict[tuple[int, ...], list[tuple[float, int, int]]] = {}
    for i in range(0, rows, r):
        for j in range(0, columns, c):
            size = float((weights[i : i + r, j : j + c].astype(np.float64) ** 2).sum())
            pool = {TENSOR: (), ROW: (i,)}.get(pattern.pool, (i, j // c // max(1, pattern.pool)))
            pools.setdefault(pool, []).append((size, i, j))
    kept = np.ones(weights.shape, np.bool_)
    for units in pools.values():
        for _, i, j in sorted(units)[: round((pattern.share if share is None else share) * len(units))]:
            kept[i : i + r, j : j + c] = False
    return kept


def strip(weights: Floats, kept: Mask) -> Floats:
    """The mask applied for good: weights that are not kept are +0."""
    return np.where(kept, weights, np.float32(0))


class Schedule(Protocol):
    """How much is pruned after so many steps of training."""

    def share_at(self, step: int) -> float: ...


@dataclass(frozen=True)
class Constant:
    """All of it from step `begin` on."""

    share: float
    begin: int = 0

    def share_at(self, step: int) -> float:
        return self.share if step >= self.begin else 0.0


@dataclass(frozen=True)
class Polynomial:
    """From `initial` at step `begin` to `final` at step `end`, fast at first: with t the part of the way gone,

        share = final + (initial - final) (1 - t)^power

    Zhu & Gupta's is cubic. The share moves every `every` steps and is held between.
    """

    final: float
    end: int
    initial: float = 0.0
    begin: int = 0
    every: int = 1
    power: float = 3.0

    def __post_init__(self) -> None:
        if self.end <= self.begin or self.every < 1 or self.power <= 0:
            raise RecipeError("a schedule ends after it begins, moves every 1 step at least, and has a power above 0")

    def share_at(self, step: int) -> float:
        if step < self.begin:
            return 0.0
        held = self.end if step >= self.end else step - (step - self.begin) % self.every
        gone = (held - self.begin) / (self.end - self.begin)
        return self.final + (self.initial - self.final) * float((1 - gone) ** self.power)
