"""What a matrix is worth as the engine holds it, read back from `Integers` in numpy: the slow twin of its kernels' decoding."""

from __future__ import annotations

from bitwright.core import Floats
from bitwright.engine.layout import integers_of
from bitwright.formats.hadamard import rotate
from bitwright.formats.packing import unpack
from bitwright.formats.table import decode_with
from bitwright.models.base import Packed


def held_weights(packed: Packed) -> Floats:
    """(rows, columns) float32."""
    integers = integers_of(packed)
    if integers is None:
        return packed.dequantize()
    rows, columns = packed.shape
    codes = unpack(integers.codes, columns, integers.bits)
    if integers.table is not None:
        levels = decode_with(integers.table, codes).astype("f4") - 128
    else:
        levels = codes.astype("f4") - (1 << (integers.bits - 1))
    grouped = levels.reshape(rows, -1, integers.group) if integers.group > 0 else levels.reshape(1, 1, -1)
    if integers.zero_point is not None:
        middle = 1 << (integers.bits - 1)
        grouped = grouped - (integers.zero_point.astype("f4") - middle).reshape(*grouped.shape[:2], 1)
    scale = integers.scale.view("f2").astype("f4") if integers.scale.dtype == "u2" else integers.scale
    if integers.multiples is not None:
        scale = scale[:, None] * integers.multiples.reshape(grouped.shape[:2])
    return rotate((grouped * scale.reshape(*grouped.shape[:2], 1)).reshape(rows, columns).astype("f4"), packed.rotation)
