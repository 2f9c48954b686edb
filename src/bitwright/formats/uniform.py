"""Uniform integers: levels -2^(b-1) .. 2^(b-1) - 1, evenly spaced.

A weight is scale * level (symmetric) or scale * (level - zero_point) (affine). Codes are level + 2^(b-1), unsigned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from bitwright.formats.checks import require_finite
from bitwright.formats.table import OWN_SCALES


@dataclass(frozen=True)
class Uniform:
    """`int2` to `int8`."""

    bits: int
    scaled: ClassVar[bool] = True
    affine: ClassVar[bool] = True  # may have a zero point
    learned: ClassVar[str] = ""
    level_bits: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ValueError(f"uniform formats have 2 to 8 bits, not {self.bits}")

    @property
    def name(self) -> str:
        return f"int{self.bits}"

    @property
    def scales(self) -> tuple[str, ...]:
        """Scale types it can have, the usual one first. Multiples of a row's scale need levels that a byte holds 15 times."""
        return (*OWN_SCALES, "row5") if self.bits <= 4 else OWN_SCALES

    @property
    def largest(self) -> float:
        """The level of largest size."""
        return float(-self.lowest)

    @property
    def lowest(self) -> int:
        return -(1 << (self.bits - 1))

    @property
    def highest(self) -> int:
        return (1 << (self.bits - 1)) - 1

    @property
    def summary(self) -> str:
        return f"{1 << self.bits} even levels, {self.lowest} to {self.highest}, times a scale; symmetric or affine"

    def encode(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """Scaled reals, any shape, to uint8 codes: nearest level, ties to even, clipped. Raises `NonFiniteError`."""
        levels = np.rint(require_finite(x))
        return (np.clip(levels, self.lowest, self.highest) - self.lowest).astype(np.uint8)

    def decode(self, codes: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        return codes.astype(np.float32) + np.float32(self.lowest)
