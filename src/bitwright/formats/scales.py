"""Scales are numbers too: rounding them to their stored type, and their bytes.

A scale is rounded before codes are chosen, so that its own rounding costs nothing further.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.errors import SchemeError

SMALLEST = {"fp32": 2.0**-126, "fp16": 2.0**-24, "bf16": 2.0**-126, "pow2": 2.0**-126}
STORED_DTYPE = {"fp32": np.float32, "fp16": np.float16, "bf16": np.uint16, "pow2": np.int8}

Floats = npt.NDArray[np.float32]


def round_scale(scale: Floats, kind: str) -> Floats:
    """float32 scales rounded to `kind`, still as float32. A scale too small for its type becomes the smallest one.

    Raises `SchemeError` where fp16 overflows.
    """
    smallest = np.float32(SMALLEST[kind])
    scale = np.where(np.abs(scale) < smallest, np.copysign(smallest, scale), scale).astype(np.float32)
    return load_scale(store_scale(scale, kind), kind)


def store_scale(scale: Floats, kind: str) -> npt.NDArray[Any]:
    """float32 scales as the array that goes to disk: float32, float16, uint16 (bf16) or int8 (exponents)."""
    if kind == "fp32":
        return scale.astype(np.float32)
    if kind == "pow2":
        if np.any(scale <= 0):
            raise SchemeError("a fixed-point scale must be a positive power of two")
        return np.clip(np.rint(np.log2(scale)), -126, 127).astype(np.int8)
    if kind == "bf16":
        raw = np.ascontiguousarray(scale, np.float32).view(np.uint32)
        return ((raw + np.uint32(0x7FFF) + ((raw >> 16) & 1)) >> 16).astype(np.uint16)
    with np.errstate(over="ignore"):
        half = scale.astype(np.float16)
    if not np.isfinite(half).all():
        raise SchemeError("a scale is beyond fp16's range (65504); append -sbf16 or -sfp32 to the scheme")
    return half


def load_scale(stored: npt.NDArray[Any], kind: str) -> Floats:
    """The inverse of `store_scale`."""
    if kind == "bf16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    if kind == "pow2":
        return np.exp2(stored.astype(np.float32))
    return stored.astype(np.float32)
