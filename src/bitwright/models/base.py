"""A language model as the rest of the house sees it: named tensors, stored packed or dense, read one at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from bitwright.core import Floats, QParams, QTensor, Scheme
from bitwright.formats import FORMATS
from bitwright.formats.packing import unpack
from bitwright.formats.scales import group_scales, load_scale
from bitwright.models.architecture import Architecture, TensorSlice

if TYPE_CHECKING:
    from bitwright.models.tokenizer import Tokenizer


PARTS = ("scale", "zero_point", "multiple", "table")  # of a Packed, beside its codes


@dataclass(frozen=True)
class Packed:
    """A quantized matrix as it lies on disk.

    `codes`       (rows, row bytes) uint8, packed as formats/packing.py says; may be a read-only memory map
    `scale`       (groups,) in the scheme's stored dtype; (rows,) for row5, (1,) for e4m3
    `zero_point`  (groups,) uint8, zero-point level - lowest level; None when symmetric
    `multiple`    (rows, bytes) uint8, multiples of a shared scale as formats/scales.py stores them; None but for row5, e4m3
    `table`       (tensors, rows or groups, 2^bits) int8, or float16 beyond four bits, ascending; None unless learned
    `rotation`    columns in a block of the Hadamard rotation that the codes are of; 0 for none
    """

    scheme: Scheme
    shape: tuple[int, int]
    codes: npt.NDArray[np.uint8]
    scale: npt.NDArray[Any]
    zero_point: npt.NDArray[np.uint8] | None = None
    multiple: npt.NDArray[np.uint8] | None = None
    table: npt.NDArray[np.int8 | np.float16] | None = None
    rotation: int = 0

    def rows(self, begin: int, end: int) -> Packed:
        """Rows [begin, end), without a copy."""

        def part(array: npt.NDArray[Any] | None) -> npt.NDArray[Any] | None:
            if array is None or len(array) == 1:  # what a tensor has one of holds for any of its rows
                return array
            each = len(array) // self.shape[0]
            return array[begin * each : end * each]

        fields: dict[str, Any] = {name: part(getattr(self, name)) for name in PARTS}
        return replace(self, shape=(end - begin, self.shape[1]), codes=self.codes[begin:end], **fields)

    @classmethod
    def joined(cls, parts: Sequence[Packed]) -> Packed:
        """Blocks of rows of one tensor, one below the other."""
        arrays = {name: [getattr(part, name) for part in parts] for name in ("codes", *PARTS)}
        fields: dict[str, Any] = {name: None if each[0] is None else np.concatenate(each) for name, each in arrays.items()}
        return replace(parts[0], shape=(sum(part.shape[0] for part in parts), parts[0].shape[1]), **fields)

    def qtensor(self) -> QTensor:
        """Unpacked."""
        bits, scale, row_scale = FORMATS[self.scheme.format].bits, load_scale(self.scale, self.scheme.scale), None
        zero_point = None if self.zero_point is None else FORMATS[self.scheme.format].decode(self.zero_point)
        if self.multiple is not None:
            row_scale = scale
            scale = group_scales(row_scale, self.multiple, self.scheme.scale, self.groups_a_row)
        table = None if self.table is None else self.table.astype(np.float32)
        params = QParams(scale, zero_point, row_scale, table)
        return QTensor(unpack(self.codes, self.shape[1], bits), params, self.scheme, self.rotation)

    @property
    def groups_a_row(self) -> int:
        return max(1, self.shape[1] // self.scheme.group_size(self.shape))

    def dequantize(self) -> Floats:
        """(rows, columns) float32."""
        return self.qtensor().dequantize()


@dataclass(frozen=True)
class Dense:
    """A tensor in full precision as it lies on disk.

    `dtype`   fp32, fp16 or bf16
    `values`  float32, float16 or (bf16) uint16, of one or two dimensions; may be a read-only memory map
    """

    dtype: str
    values: npt.NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape)

    def rows(self, begin: int, end: int) -> Dense:
        """Rows [begin, end), without a copy."""
        return Dense(self.dtype, self.values[begin:end])

    def dequantize(self) -> Floats:
        """float32 of the same shape."""
        if self.dtype == "bf16":
            return (self.values.astype(np.uint32) << 16).view(np.float32)
        return self.values.astype(np.float32)


class WithMinimum(Dense):
    """Codes whose groups of 32 have a scale and a real minimum: weight = scale * code + minimum, as in GGUF's Q4_1 or Q4_K.

    No scheme says this exactly, so to everybody but the engine it is a Dense of fp32, decoded when its values are asked for.

    `codes`    (rows, row bytes) uint8, packed as formats/packing.py says
    `scale`    (rows * groups,) float16 or float32
    `minimum`  (rows * groups,) float32
    """

    GROUP = 32

    def __init__(self, bits: int, codes: npt.NDArray[np.uint8], scale: npt.NDArray[Any], minimum: Floats) -> None:
        fields = {"dtype": "fp32", "bits": bits, "codes": codes, "scale": scale, "minimum": minimum}
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    bits: int
    codes: npt.NDArray[np.uint8]
    scale: npt.NDArray[Any]
    minimum: Floats

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.codes.shape[0], self.scale.size * self.GROUP // self.codes.shape[0])

    @cached_property
    def values(self) -> Floats:
        """(rows, columns) float32."""
        values = unpack(self.codes, self.shape[1], self.bits).astype(np.float32).reshape(-1, self.GROUP)
        with np.errstate(all="ignore"):  # hostile scales may be NaN or infinite; whoever encodes the values refuses them
            values *= self.scale.astype(np.float32)[:, None]
            values += self.minimum[:, None]
        return values.reshape(self.shape)

    def reordered(self, order: npt.NDArray[np.int64]) -> WithMinimum:
        """The same with its rows in another order."""
        scale, minimum = (array.reshape(len(order), -1)[order].reshape(-1) for array in (self.scale, self.minimum))
        return WithMinimum(self.bits, self.codes[order], scale, minimum)


class LanguageModel(Protocol):
    """What a Hugging Face directory, a GGUF file and an artifact all present."""

    architecture: Architecture
    path: Path

    def names(self) -> Sequence[str]:
        """Hugging Face tensor names, in the order of the layers, also for GGUF."""
        ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def stored(self, name: str) -> Packed | Dense:
        """The tensor as stored, memory-mapped where that is possible. Raises `MissingTensorError`."""
        ...

    def read(self, name: str) -> Floats:
        """The tensor dequantized to float32."""
        ...

    def stored_bits(self, name: str) -> int:
        """All bits this tensor takes in the file, scales and zero points included."""
        ...

    def scheme_of(self, name: str) -> str:
        """How the tensor is stored, for display: int4-g64, bf16, or a GGUF type by its own name."""
        ...

    def roles(self) -> Mapping[tuple[str, int], TensorSlice]:
        """(role, layer) -> rows of a tensor; layer -1 for embedding, head and final_norm."""
        ...

    def tokenizer(self) -> Tokenizer:
        """Raises `TokenizerError` where there is none."""
        ...

    def config(self) -> dict[str, Any]:
        """A config.json that the families table reads back to the same architecture."""
        ...

    def fingerprint(self) -> str:
        """A short id of the content, for caches."""
        ...
