"""Full precision: fp32, fp16 and bf16, the baseline every table starts with.

A code is the number's own bits. bf16 keeps the upper 16 bits of fp32, rounded to nearest, ties to even.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from bitwright.errors import NonFiniteError
from bitwright.formats.checks import require_finite


@dataclass(frozen=True)
class FullPrecision:
    """`fp32`, `fp16` or `bf16`: stored as it is, without a scale."""

    name: str
    bits: int
    scaled: ClassVar[bool] = False
    affine: ClassVar[bool] = False
    learned: ClassVar[str] = ""
    level_bits: ClassVar[int] = 0
    scales: ClassVar[tuple[str, ...]] = ("fp16",)  # unused, but a scheme has one

    @property
    def summary(self) -> str:
        return {"fp32": "IEEE single", "fp16": "IEEE half", "bf16": "upper half of fp32"}[self.name] + ", no scale: the baseline"

    def encode(self, x: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """float32 of any shape to uint32 (fp32) or uint16 codes. Raises `NonFiniteError`, also where fp16 overflows."""
        values = require_finite(x)
        if self.name == "fp32":
            return values.view(np.uint32)
        if self.name == "bf16":
            raw = values.view(np.uint32)
            codes = ((raw + np.uint32(0x7FFF) + ((raw >> 16) & 1)) >> 16).astype(np.uint16)
            if np.any((codes & 0x7F80) == 0x7F80):
                raise NonFiniteError("a value is beyond bf16's range; keep this tensor in fp32")
            return codes
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.isfinite(half).all():
            raise NonFiniteError("a value is beyond fp16's range (65504); use bf16 or fp32 for this tensor")
        return half.view(np.uint16)

    def decode(self, codes: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        if self.name == "fp32":
            return codes.astype(np.uint32, copy=False).view(np.float32)
        if self.name == "bf16":
            return (codes.astype(np.uint32) << 16).view(np.float32)
        return codes.astype(np.uint16, copy=False).view(np.float16).astype(np.float32)
