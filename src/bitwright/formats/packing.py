"""Codes to bytes and back: each row is one little-endian bit stream.

Code j of a row occupies bits j*b .. (j+1)*b - 1 of the row's stream, least significant bit first; rows are padded
with zero bits to a whole byte. One rule for every width from 2 to 8.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitwright import _native

Bytes = npt.NDArray[np.uint8]


def row_bytes(columns: int, bits: int) -> int:
    """Bytes that one packed row takes."""
    return (columns * bits + 7) // 8


def pack(codes: Bytes, bits: int) -> Bytes:
    """(rows, columns) uint8 codes below 2^bits to (rows, row_bytes)."""
    return _native.pack_codes(np.ascontiguousarray(codes), bits)


def unpack(packed: Bytes, columns: int, bits: int) -> Bytes:
    """(rows, row_bytes) to (rows, columns) uint8 codes."""
    return _native.unpack_codes(np.ascontiguousarray(packed), columns, bits)


def pack_reference(codes: Bytes, bits: int) -> Bytes:
    """The slow twin of `pack`, in plain numpy."""
    stream = (codes[:, :, None] >> np.arange(bits, dtype=np.uint8)) & 1
    return np.packbits(stream.reshape(codes.shape[0], -1), axis=1, bitorder="little")


def unpack_reference(packed: Bytes, columns: int, bits: int) -> Bytes:
    """The slow twin of `unpack`, in plain numpy."""
    stream = np.unpackbits(packed, axis=1, bitorder="little", count=columns * bits)
    weights = np.uint8(1) << np.arange(bits, dtype=np.uint8)
    codes: Bytes = (stream.reshape(packed.shape[0], columns, bits) * weights).sum(axis=2).astype(np.uint8)
    return codes
