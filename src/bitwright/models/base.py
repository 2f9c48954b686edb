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
from bitwright.formats.scales import load_multiples, load_scale
from bitwright.formats.uniform import Uniform
from bitwright.models.architecture import Architecture, TensorSlice

if TYPE_CHECKING:
    from bitwright.models.tokenizer import Tokenizer


@dataclass(frozen=True)
class Packed:
    """A quantized matrix as it lies on disk.

    `codes`       (rows, row bytes) uint8, packed as formats/packing.py says; may be a read-only memory map
    `scale`       (groups,) in the scheme's stored dtype; (rows,) for row5
    `zero_point`  (groups,) uint8, zero-point level - lowest level; None when symmetric
    `multiple`    (rows, bytes) uint8, multiples of the row's scale as formats/scales.py stores them; None but for row5
    `rotation`    columns in a block of the Hadamard rotation that the codes are of; 0 for none
    """

    scheme: Scheme
    shape: tuple[int, int]
    codes: npt.NDArray[np.uint8]
    scale: npt.NDArray[Any]
    zero_point: npt.NDArray[np.uint8] | None = None
    multiple: npt.NDArray[np.uint8] | None = None
    rotation: int = 0

    def rows(self, begin: int, end: int) -> Packed:
        """Rows [begin, end), without a copy."""
        scale, zero_point = self.scale, self.zero_point
        if self.scheme.group >= 0:  # a tensor's one scale holds for any of its rows
            scales_a_row = len(scale) // self.shape[0]
            part = slice(begin * scales_a_row, end * scales_a_row)
            scale, zero_point = scale[part], None if zero_point is None else zero_point[part]
        multiple = None if self.multiple is None else self.multiple[begin:end]
        shape, codes = (end - begin, self.shape[1]), self.codes[begin:end]
        return replace(self, shape=shape, codes=codes, scale=scale, zero_point=zero_point, multiple=multiple)

    def qtensor(self) -> QTensor:
        """Unpacked."""
        grid = FORMATS[self.scheme.format]
        assert isinstance(grid, Uniform)
        zero_point = None if self.zero_point is None else self.zero_point.astype(np.float32) + np.float32(grid.lowest)
        scale, row_scale = load_scale(self.scale, self.scheme.scale), None
        if self.multiple is not None:
            row_scale = scale
            scale = (row_scale[:, None] * self.multiples().astype(np.float32)).reshape(-1)
        params = QParams(scale, zero_point, row_scale)
        return QTensor(unpack(self.codes, self.shape[1], grid.bits), params, self.scheme, self.rotation)

    def multiples(self) -> npt.NDArray[np.int8]:
        """(rows, groups a row) of -15 .. 15, for row5."""
        assert self.multiple is not None
        return load_multiples(self.multiple, self.shape[1] // self.scheme.group_size(self.shape))

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
