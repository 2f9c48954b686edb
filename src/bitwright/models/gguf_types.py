"""GGUF tensor types: how many bytes a block takes, and what its numbers are.

A row is cut into blocks; a block holds its own scale(s). Ours, bit for bit as ggml's `ggml-common.h` lays them out
(d, m are fp16; q unsigned; element i of a block of 32 sits in the low nibble of byte i, element i + 16 in the high one):

    Q4_0  d, 16 bytes q               d * (q - 8)       = int4-g32
    Q5_0  d, 4 bytes high bits, 16 q  d * (q - 16)      = int5-g32
    Q8_0  d, 32 signed bytes          d * q             = int8-g32
    Q4_1  d, m, 16 bytes q            d * q + m           a real minimum has no whole zero point: `WithMinimum`
    Q5_1  d, m, 4 high, 16 q          d * q + m           likewise
    Q4_K  d, e, 12 bytes, 128 q       d * s * q - e * t   256 numbers in groups of 32, each with six bits of s and of t
    Q5_K  d, e, 12, 32 high, 128 q    d * s * q - e * t   likewise

The other types are decoded by the `gguf` package, a few rows at a time, to fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bitwright.core import Floats, Scheme
from bitwright.errors import NonFiniteError, UnknownDtypeError
from bitwright.formats.packing import pack
from bitwright.models.base import Dense, Packed, WithMinimum

Bytes = npt.NDArray[np.uint8]
GROUP: Final = 32  # elements in a block of every type decoded here
CHUNK: Final = 1 << 20  # elements decoded at a time: bounds the memory that decoding takes beside its result


@dataclass(frozen=True)
class TensorType:
    """`block` elements take `size` bytes. `decodable` is false for types that hold no weights."""

    name: str
    block: int
    size: int
    decodable: bool = True


# Numbers as in ggml's enum ggml_type; the gaps are types that were withdrawn.
TENSOR_TYPES: Final[dict[int, TensorType]] = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    2: TensorType("Q4_0", 32, 18),
    3: TensorType("Q4_1", 32, 20),
    6: TensorType("Q5_0", 32, 22),
    7: TensorType("Q5_1", 32, 24),
    8: TensorType("Q8_0", 32, 34),
    9: TensorType("Q8_1", 32, 36, decodable=False),
    10: TensorType("Q2_K", 256, 84),
    11: TensorType("Q3_K", 256, 110),
    12: TensorType("Q4_K", 256, 144),
    13: TensorType("Q5_K", 256, 176),
    14: TensorType("Q6_K", 256, 210),
    15: TensorType("Q8_K", 256, 292, decodable=False),
    16: TensorType("IQ2_XXS", 256, 66),
    17: TensorType("IQ2_XS", 256, 74),
    18: TensorType("IQ3_XXS", 256, 98),
    19: TensorType("IQ1_S", 256, 50),
    20: TensorType("IQ4_NL", 32, 18),
    21: TensorType("IQ3_S", 256, 110),
    22: TensorType("IQ2_S", 256, 82),
    23: TensorType("IQ4_XS", 256, 136),
    24: TensorType("I8", 1, 1, decodable=False),
    25: TensorType("I16", 1, 2, decodable=False),
    26: TensorType("I32", 1, 4, decodable=False),
    27: TensorType("I64", 1, 8, decodable=False),
    28: TensorType("F64", 1, 8, decodable=False),
    29: TensorType("IQ1_M", 256, 56),
    30: TensorType("BF16", 1, 2),
    34: TensorType("TQ1_0", 256, 54),
    35: TensorType("TQ2_0", 256, 66),
    39: TensorType("MXFP4", 32, 17),
    40: TensorType("NVFP4", 64, 36),
    41: TensorType("Q1_0", 128, 18, decodable=False),
}

_VIEWS: Final[dict[str, tuple[str, str]]] = {"F32": ("fp32", "<f4"), "F16": ("fp16", "<f2"), "BF16": ("bf16", "<u2")}
_PACKED: Final[dict[str, str]] = {"Q4_0": "int4-g32", "Q5_0": "int5-g32", "Q8_0": "int8-g32"}


def decode(type_name: str, raw: Bytes, shape: tuple[int, ...]) -> Packed | Dense:
    """The bytes of one tensor, (rows, row bytes), as Packed where the type is exactly an integer scheme, else Dense.

    F32, F16 and BF16 stay views of `raw` where it is aligned. Raises `UnknownDtypeError` for a type that holds no weights
    and `NonFiniteError` for a packed matrix with a scale that is NaN or infinite.
    """
    raw = np.asarray(raw)  # results should not look like memory maps of their own
    if type_name in _VIEWS:
        dtype, number = _VIEWS[type_name]
        return Dense(dtype, np.require(raw.view(number), requirements="A").reshape(shape))
    if type_name in _PACKED and len(shape) == 2:
        return _packed(type_name, raw, (shape[0], shape[1]))
    if type_name in _WITH_MINIMUM and len(shape) == 2 and raw.size:
        parts = [_WITH_MINIMUM[type_name](rows) for rows in _chunks(raw)]
        codes, scale, minimum = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return WithMinimum(5 if type_name.startswith("Q5") else 4, codes, scale, minimum)
    decoder = _DECODERS.get(type_name) or _library_decoder(type_name)
    values = np.concatenate([decoder(rows) for rows in _chunks(raw)]) if raw.shape[0] else np.empty(0, np.float32)
    return Dense("fp32", values.reshape(shape))


def _chunks(raw: Bytes) -> Iterator[Bytes]:
    """Rows of `raw`, about CHUNK elements at a time (a byte holds at most four)."""
    step = max(1, CHUNK // max(1, 2 * raw.shape[1]))
    for begin in range(0, raw.shape[0], step):
        yield np.ascontiguousarray(raw[begin : begin + step])


def _packed(type_name: str, raw: Bytes, shape: tuple[int, int]) -> Packed:
    scheme = Scheme.parse(_PACKED[type_name])
    codes = np.concatenate([_pack_rows(type_name, rows) for rows in _chunks(raw)])
    size = {"Q4_0": 18, "Q5_0": 22, "Q8_0": 34}[type_name]
    scale = np.ascontiguousarray(raw.reshape(-1, size)[:, :2]).view(np.float16).reshape(-1)
    if not np.isfinite(scale).all():
        raise NonFiniteError(f"a {type_name} tensor has NaN or infinite scales; download the model again or convert it anew")
    return Packed(scheme, shape, codes, scale)


def _pack_rows(type_name: str, rows: Bytes) -> Bytes:
    """Codes (level - lowest level) of some rows, packed as formats/packing.py says."""
    if type_name == "Q8_0":
        blocks = rows.reshape(-1, 34)[:, 2:] ^ np.uint8(0x80)  # signed byte to code: + 128
        return blocks.reshape(rows.shape[0], -1)
    if type_name == "Q4_0":
        codes = _nibbles(rows.reshape(-1, 18)[:, 2:])
        return pack(codes.reshape(rows.shape[0], -1), 4)
    codes = _fifth_bits(rows.reshape(-1, 22)[:, 2:])
    return pack(codes.reshape(rows.shape[0], -1), 5)


def _nibbles(packed: Bytes) -> Bytes:
    """(blocks, 16) bytes to (blocks, 32) codes: low nibbles first, then high ones."""
    return np.concatenate([packed & np.uint8(15), packed >> np.uint8(4)], axis=1)


def _fifth_bits(packed: Bytes) -> Bytes:
    """(blocks, 4 + 16) bytes, high bits before nibbles, to (blocks, 32) codes of five bits."""
    high = np.unpackbits(packed[:, :4], axis=1, bitorder="little")
    return _nibbles(packed[:, 4:]) | (high << np.uint8(4))


def _halves(blocks: Bytes, begin: int) -> Floats:
    """(blocks, 1) the fp16 at byte `begin` of each block, as float32."""
    return np.ascontiguousarray(blocks[:, begin : begin + 2]).view(np.float16).astype(np.float32)


def _with_minimum(codes: Bytes, blocks: Bytes) -> Floats:
    """Flat d * q + m."""
    values = codes.astype(np.float32)
    with np.errstate(all="ignore"):  # hostile scales may be NaN or infinite; whoever encodes the values refuses them
        values *= _halves(blocks, 0)
        values += _halves(blocks, 2)
    return values.reshape(-1)


def _without_minimum(codes: Bytes, blocks: Bytes, middle: int) -> Floats:
    """Flat d * (q - middle): for tensors that are no matrices and so are not packed."""
    with np.errstate(all="ignore"):
        return (_halves(blocks, 0) * (codes.astype(np.float32) - np.float32(middle))).reshape(-1)


def _q4_0(rows: Bytes) -> Floats:
    blocks = rows.reshape(-1, 18)
    return _without_minimum(_nibbles(blocks[:, 2:]), blocks, 8)


def _q4_1(rows: Bytes) -> Floats:
    blocks = rows.reshape(-1, 20)
    return _with_minimum(_nibbles(blocks[:, 4:]), blocks)


def _q5_0(rows: Bytes) -> Floats:
    blocks = rows.reshape(-1, 22)
    return _without_minimum(_fifth_bits(blocks[:, 2:]), blocks, 16)


def _q5_1(rows: Bytes) -> Floats:
    blocks = rows.reshape(-1, 24)
    return _with_minimum(_fifth_bits(blocks[:, 4:]), blocks)


def _q8_0(rows: Bytes) -> Floats:
    blocks = rows.reshape(-1, 34)
    return _without_minimum(blocks[:, 2:] ^ np.uint8(0x80), blocks, 128)


def _simple_with_minimum(rows: Bytes, size: int) -> tuple[Bytes, npt.NDArray[np.float16], Floats]:
    """Q4_1 and Q5_1: packed codes, scales and minima of some rows."""
    blocks = rows.reshape(-1, size)
    codes = _nibbles(blocks[:, 4:]) if size == 20 else _fifth_bits(blocks[:, 4:])
    packed = pack(codes.reshape(rows.shape[0], -1), 4 if size == 20 else 5)
    return packed, np.ascontiguousarray(blocks[:, :2]).view(np.float16).reshape(-1), _halves(blocks, 2).reshape(-1)


def _six_bits(packed: Bytes) -> tuple[Bytes, Bytes]:
    """(blocks, 12) bytes to (blocks, 8) s and (blocks, 8) t of six bits. Groups 0 to 3 have theirs in the low bits of bytes 0-3
    (s) and 4-7 (t); 4 to 7 have four bits in bytes 8-11 (s low, t high nibble) and two at the top of bytes 0-3 and 4-7."""
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    s = np.concatenate([first & 63, (third & 15) | (first >> 6 << 4)], axis=1)
    t = np.concatenate([second & 63, (third >> 4) | (second >> 6 << 4)], axis=1)
    return s, t


def _super_blocks(rows: Bytes, size: int) -> tuple[Bytes, Floats, Floats]:
    """Q4_K and Q5_K: packed codes, scales and minima of some rows. A pair of groups shares 32 bytes of nibbles."""
    blocks = rows.reshape(-1, size)
    s, t = _six_bits(blocks[:, 4:16])
    nibbles = blocks[:, -128:].reshape(-1, 4, 1, 32)
    codes = np.concatenate([nibbles & np.uint8(15), nibbles >> np.uint8(4)], axis=2).reshape(-1, 8, 32)
    bits = 4 if size == 144 else 5
    if bits == 5:
        high = blocks[:, 16:48].reshape(-1, 1, 32) >> np.arange(8, dtype=np.uint8).reshape(1, 8, 1)
        codes = codes | ((high & np.uint8(1)) << np.uint8(4))
    with np.errstate(all="ignore"):
        scale, minimum = _halves(blocks, 0) * s.astype(np.float32), -(_halves(blocks, 2) * t.astype(np.float32))
    return pack(codes.reshape(rows.shape[0], -1), bits), scale.reshape(-1), minimum.reshape(-1)


_WITH_MINIMUM: Final[dict[str, Callable[[Bytes], tuple[Bytes, npt.NDArray[Any], Floats]]]] = {
    "Q4_1": lambda rows: _simple_with_minimum(rows, 20),
    "Q5_1": lambda rows: _simple_with_minimum(rows, 24),
    "Q4_K": lambda rows: _super_blocks(rows, 144),
    "Q5_K": lambda rows: _super_blocks(rows, 176),
}

_DECODERS: Final[dict[str, Callable[[Bytes], Floats]]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
}


def _library_decoder(type_name: str) -> Callable[[Bytes], Floats]:
    """The `gguf` package's dequantizer. It is imported only here: most files never need it."""
    known = {kind.name: kind for kind in TENSOR_TYPES.values()}
    if type_name not in known or not known[type_name].decodable:
        cure = "requantize the model to a type such as Q4_0, Q8_0 or Q4_K"
        raise UnknownDtypeError(f"tensor type {type_name} holds no weights that can be decoded; {cure}")
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    try:
        kind: Any = GGMLQuantizationType[type_name]
    except KeyError as fault:
        raise UnknownDtypeError(f"the installed gguf package cannot decode {type_name}; pip install --upgrade gguf") from fault

    def decoder(rows: Bytes) -> Floats:
        with np.errstate(all="ignore"):
            values: Floats = dequantize(rows, kind).astype(np.float32, copy=False).reshape(-1)
        return values

    return decoder
