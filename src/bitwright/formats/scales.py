"""Scales are numbers too: rounding them to their stored type, and their bytes.

A scale is rounded before codes are chosen, so that its own rounding costs nothing further.

`row5` stores one fp16 scale r a row and five bits a group, a whole m from -15 to 15: the group's scale is m * r. A level of
up to four bits times m fits a signed byte, so that each row is bytes under one scale. (Scales that are quantized in their
turn: double quantization in QLoRA, arXiv:2305.14314; the super-blocks of GGUF's K types.) `e4m3` stores an fp8 number a
group, to be multiplied by one fp32 scale of the tensor, as NVFP4 does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.errors import SchemeError
from bitwright.formats.minifloat import minifloat
from bitwright.formats.packing import pack, unpack

TINY = 2.0**-126
SMALLEST = {"fp32": TINY, "fp16": 2.0**-24, "bf16": TINY, "pow2": TINY, "row5": 2.0**-24, "e4m3": TINY}
# Of row5 and e4m3, what the groups' multiples are multiples of.
STORED_DTYPE = {
    "fp32": np.float32,
    "fp16": np.float16,
    "bf16": np.uint16,
    "pow2": np.int8,
    "row5": np.float16,
    "e4m3": np.float32,
}
SHARED = ("row5", "e4m3")  # kinds whose groups store a multiple of a scale that their row or tensor shares
MULTIPLE_BITS, LARGEST_MULTIPLE, MULTIPLE_OFFSET = 5, 15, 16  # of row5; stored as multiple + 16
E4M3 = minifloat(4, 3)

Floats = npt.NDArray[np.float32]


def round_scale(scale: Floats, kind: str) -> Floats:
    """float32 scales rounded to `kind`, still as float32. A scale too small for its type becomes the smallest one.

    Raises `SchemeError` where fp16 overflows.
    """
    smallest = np.float32(SMALLEST[kind])
    scale = np.where(np.abs(scale) < smallest, np.copysign(smallest, scale), scale).astype(np.float32)
    return load_scale(store_scale(scale, kind), kind)


def store_scale(scale: Floats, kind: str) -> npt.NDArray[Any]:
    """float32 scales as the array that goes to disk: float32, float16, uint16 (bf16) or int8 (exponents).

    Of row5 and e4m3, the scales that are shared; `store_multiples` stores the groups'.
    """
    if kind in ("fp32", "e4m3"):
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


def store_multiples(scale: Floats, shared: Floats, kind: str) -> npt.NDArray[np.uint8]:
    """(rows, groups a row) scales, exact multiples of `shared`, (rows,) or (1,), to (rows, bytes)."""
    multiples = scale / shared[:, None]
    if kind == "e4m3":
        return E4M3.encode(multiples)
    return pack((np.rint(multiples) + MULTIPLE_OFFSET).astype(np.uint8), MULTIPLE_BITS)


def load_multiples(stored: npt.NDArray[np.uint8], groups_a_row: int) -> npt.NDArray[np.int8]:
    """(rows, groups a row) of -15 .. 15, of row5. A hostile file may hold -16, which `artifact` refuses."""
    return unpack(stored, groups_a_row, MULTIPLE_BITS).astype(np.int8) - np.int8(MULTIPLE_OFFSET)


def group_scales(shared: Floats, stored: npt.NDArray[np.uint8], kind: str, groups_a_row: int) -> Floats:
    """(groups,) scales, from the shared ones and the stored multiples."""
    multiples = E4M3.decode(stored) if kind == "e4m3" else load_multiples(stored, groups_a_row).astype(np.float32)
    return (shared[:, None] * multiples).reshape(-1)
