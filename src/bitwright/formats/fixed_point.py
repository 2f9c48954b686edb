"""Fixed point ("point quantization"): uniform levels whose scale is a power of two, so that rescaling is a shift.

A weight is level * 2^e with one whole exponent e for each tensor, row or group; e is stored in a signed byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bitwright.formats.uniform import Uniform


@dataclass(frozen=True)
class FixedPoint(Uniform):
    """`fixed2` to `fixed8`."""

    affine: ClassVar[bool] = False

    @property
    def scales(self) -> tuple[str, ...]:
        return ("pow2",)

    @property
    def name(self) -> str:
        return f"fixed{self.bits}"

    @property
    def summary(self) -> str:
        return f"{1 << self.bits} even levels, {self.lowest} to {self.highest}, times a power of two: rescaling is a shift"
