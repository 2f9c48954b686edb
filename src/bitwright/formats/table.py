"""Formats given by a table: the level that each code stands for. A weight is scale * table[code].

The nearest level is found by counting thresholds: x takes the k-th smallest level where it exceeds k of the midpoints
between neighbours. A midpoint itself goes to the even code. A learned format has a table of its own for each tensor, row
or group, and the one listed here is where learning starts. Learned levels of up to four bits are whole numbers from -127
to 127, which integer arithmetic can multiply as they are; those of more bits are fp16.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from bitwright.formats.checks import require_finite

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]

WHOLE, WHOLE_BITS = 127, 4  # learned levels are whole numbers up to 127 in formats of up to four bits
OWN_SCALES = ("fp16", "fp32", "bf16")  # types of a scale that is a number of its own, the usual one first


@dataclass(frozen=True)
class Ordering:
    """Tables in ascending order: `levels` and `codes` (tables, n), `thresholds` (tables, n - 1)."""

    levels: Floats
    codes: Codes
    thresholds: Floats

    @classmethod
    def of(cls, tables: Floats) -> Ordering:
        """(tables, levels) in any order; codes that stand for no number (NaN) or for a level again (-0) are left out.

        Several tables must have as many levels each: learned ones, which are ascending, keep all of theirs.
        """
        if len(tables) == 1:
            _, first = np.unique(tables[0], return_index=True)  # ascending, NaN last, the first of equals
            codes = first[np.isfinite(tables[0][first])].astype(np.uint8)[None, :]
        else:
            codes = np.broadcast_to(np.arange(tables.shape[1], dtype=np.uint8), tables.shape)
        levels = np.take_along_axis(tables, codes.astype(np.intp), axis=1)
        return cls(np.ascontiguousarray(levels), np.ascontiguousarray(codes), thresholds_of(levels, codes))


def thresholds_of(levels: Floats, codes: Codes) -> Floats:
    """(tables, n - 1): a number goes to the upper of two levels if and only if it is greater."""
    middle = (levels[:, :-1].astype(np.float64) + levels[:, 1:]) / 2
    below = middle.astype(np.float32)
    below = np.where(below > middle, np.nextafter(below, np.float32(-np.inf)), below)
    tie_goes_up = (below == middle) & (codes[:, 1:] % 2 == 0)
    return np.where(tie_goes_up, np.nextafter(below, np.float32(-np.inf)), below).astype(np.float32)


@dataclass(frozen=True)
class Table:
    """`levels` of each code, NaN for a code that stands for nothing. `learned`: who has a table of its own, if anybody."""

    name: str
    bits: int
    summary: str
    levels: tuple[float, ...]
    scales: tuple[str, ...] = OWN_SCALES
    learned: str = ""  # "", "tensor", "row" or "group"
    learner: str = ""  # which of fitting/learners.py finds the table
    scaled: ClassVar[bool] = True
    affine: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if len(self.levels) != 1 << self.bits:
            raise ValueError(f"{self.name} needs {1 << self.bits} levels, not {len(self.levels)}")

    @cached_property
    def table(self) -> Floats:
        """(1, 2^bits), in the order of the codes."""
        return np.array([self.levels], np.float32)

    @property
    def level_bits(self) -> int:
        """That a learned level takes in a file."""
        return 8 if self.whole else 16

    @property
    def whole(self) -> bool:
        """Whether learned levels are whole numbers."""
        return self.bits <= WHOLE_BITS

    @cached_property
    def ordering(self) -> Ordering:
        return Ordering.of(self.table)

    @property
    def symmetric(self) -> bool:
        """Whether the other sign of a scale would change nothing."""
        levels = self.ordering.levels[0]
        return not self.learned and bool(np.array_equal(levels, -levels[::-1]))

    @property
    def largest(self) -> float:
        """The largest level; all tables reach as far below zero."""
        return float(self.ordering.levels[0, -1])

    def encode(self, x: Floats) -> Codes:
        """Scaled reals, any shape, to uint8 codes: nearest level, ties to the even code, clipped. Raises `NonFiniteError`."""
        order = self.ordering
        codes: Codes = order.codes[0][np.searchsorted(order.thresholds[0], require_finite(x), side="left")]
        return codes

    def decode(self, codes: npt.NDArray[Any]) -> Floats:
        levels: Floats = self.table[0][codes]
        return levels


def learned_table(name: str, bits: int, summary: str, levels: tuple[float, ...], learned: tuple[str, str]) -> Table:
    """A format whose levels, here from -1 to 1, are where learning starts; `learned`: who has a table, and by which learner."""
    start = tuple(float(round(WHOLE * level)) for level in levels) if bits <= WHOLE_BITS else levels
    return Table(name, bits, summary, start, learned=learned[0], learner=learned[1])


def decode_with(tables: Floats, codes: npt.NDArray[Any]) -> Floats:
    """Levels of (rows, columns) codes, each of (tables, 2^bits) serving an equal share of them in order."""
    shares = codes.reshape(len(tables), -1).astype(np.intp)
    return np.take_along_axis(tables, shares, axis=1).reshape(codes.shape)
