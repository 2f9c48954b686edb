"""GGUF files, memory-mapped, with nothing in them believed.

Layout (versions 2 and 3, little-endian), as the GGUF specification in ggml's docs/gguf.md has it:

    "GGUF"  version u32  tensor count u64  metadata count u64
    metadata:  key string, value type u32, value            string = length u64, bytes; array = type u32, count u64, values
    tensors:   name string, dimensions u32, each u64 (columns first), type u32, offset u64
    padding to the alignment, then the tensors' bytes, each at an aligned offset

Every count and length is checked against what is left of the file before anything of that size is made.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bitwright.errors import (
    HeaderError,
    MissingTensorError,
    ModelNotFoundError,
    OffsetError,
    ShapeError,
    TruncatedFileError,
    UnknownDtypeError,
)
from bitwright.models.gguf_types import TENSOR_TYPES, TensorType

VERSIONS: Final = (2, 3)
MAX_KEY: Final = 65535  # bytes, the specification's limit
MAX_NAME: Final = 256  # bytes; ggml itself stops at 64
MAX_STRING: Final = 1 << 24  # bytes; the longest chat templates have 100 kB
MAX_ITEMS: Final = 1 << 23  # array items in the whole file; the largest vocabularies have 1.5 million with their merges
MAX_DEPTH: Final = 4  # arrays in arrays
MAX_DIMENSIONS: Final = 4
DEFAULT_ALIGNMENT: Final = 32

_SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}
_BOOL, _STRING, _ARRAY = 7, 8, 9
_LENGTH: Final = struct.Struct("<Q")
_AGAIN: Final = "download it again"


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies. `shape` is in numpy order (rows, columns); `offset` counts from the start of the file."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int

    @property
    def row_bytes(self) -> int:
        return self.shape[-1] // self.type.block * self.type.size

    @property
    def rows(self) -> int:
        rows = 1
        for dimension in self.shape[:-1]:
            rows *= dimension
        return rows

    @property
    def size(self) -> int:
        """Bytes."""
        return self.rows * self.row_bytes


def shown(value: object) -> str:
    """A value from the file as it may stand in a one-line message."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


class GGUFFile:
    """One GGUF file: `metadata`, and tensors as raw bytes.

    Raises `ModelNotFoundError`, `TruncatedFileError`, `HeaderError`, `OffsetError`, `ShapeError` or `UnknownDtypeError`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._bytes = _map(self.path)
        cursor = _Cursor(self._bytes.data, self.path.name)
        tensor_count, metadata_count = cursor.header()
        self.metadata: dict[str, Any] = cursor.metadata(metadata_count)
        alignment = _alignment(self.metadata, self.path.name)
        self._tensors = cursor.tensors(tensor_count, alignment)
        _check_layout(list(self._tensors.values()), len(self._bytes), self.path.name)

    def names(self) -> list[str]:
        """In the order of the file."""
        return list(self._tensors)

    def info(self, name: str) -> TensorInfo:
        """Raises `MissingTensorError`."""
        if name not in self._tensors:
            raise MissingTensorError(f"{self.path.name} has no tensor {name!r}; convert the model anew")
        return self._tensors[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """In numpy order: (rows, columns)."""
        return self.info(name).shape

    def type_name(self, name: str) -> str:
        """Such as Q4_K."""
        return self.info(name).type.name

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        """(rows, row bytes), a read-only view of the memory map."""
        info = self.info(name)
        return self._bytes[info.offset : info.offset + info.size].reshape(info.rows, info.row_bytes)


def _map(path: Path) -> npt.NDArray[np.uint8]:
    try:
        if path.stat().st_size == 0:
            raise TruncatedFileError(f"{path} is empty; {_AGAIN}")
        return np.memmap(path, dtype=np.uint8, mode="r")
    except FileNotFoundError as fault:
        raise ModelNotFoundError(f"no file {path}; check the path") from fault
    except OSError as fault:
        raise ModelNotFoundError(f"cannot read {path}: {fault.strerror or fault}; check its permissions") from fault


def _alignment(metadata: dict[str, Any], file_name: str) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
        raise HeaderError(f"{file_name}: general.alignment must be a power of two, not {shown(alignment)}; {_AGAIN}")
    return alignment


def _check_layout(tensors: list[TensorInfo], file_size: int, file_name: str) -> None:
    """Every tensor lies inside the file and none lies on another."""
    wanted = sum(tensor.size for tensor in tensors)
    end, before = 0, ""
    for tensor in sorted(tensors, key=lambda t: t.offset):
        if tensor.offset < end:
            raise OffsetError(f"{file_name}: tensors {before!r} and {tensor.name!r} overlap; {_AGAIN}")
        end, before = tensor.offset + tensor.size, tensor.name
        if end > file_size and wanted <= file_size and tensor.offset >= file_size:
            raise OffsetError(f"{file_name}: tensor {tensor.name!r} starts behind the end of the file; {_AGAIN}")
    if end > file_size:
        raise TruncatedFileError(f"{file_name} has {file_size} bytes, but its tensor {before!r} ends at {end}; {_AGAIN}")


class _Cursor:
    """Reads the header from front to back."""

    def __init__(self, data: memoryview, file_name: str) -> None:
        self._data = data
        self._size = len(data)
        self._position = 0
        self._items = 0
        self._file = file_name

    def header(self) -> tuple[int, int]:
        """(tensors, metadata entries)."""
        if self._size < 4 or bytes(self._data[:4]) != b"GGUF":
            raise HeaderError(f"{self._file} is not a GGUF file: it does not start with 'GGUF'; check the path")
        self._position = 4
        version = self._number("I")
        if version & 0xFFFF == 0 and version:
            raise HeaderError(f"{self._file} is big-endian GGUF, which is not supported; convert it with gguf-convert-endian")
        if version not in VERSIONS:
            raise HeaderError(f"{self._file} is GGUF version {version}; versions 2 and 3 are supported: convert the model anew")
        tensor_count, metadata_count = self._number("Q"), self._number("Q")
        self._require(metadata_count * 13 + tensor_count * 32, "its tensor and metadata counts")
        return tensor_count, metadata_count

    def metadata(self, count: int) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        for _ in range(count):
            key = self._name(MAX_KEY, "metadata key")
            if key in entries:
                raise HeaderError(f"{self._file}: metadata key {shown(key)} stands twice; convert the model anew")
            entries[key] = self._value(self._number("I"), key, 0)
        return entries

    def tensors(self, count: int, alignment: int) -> dict[str, TensorInfo]:
        infos = [self._tensor(alignment) for _ in range(count)]
        base = -(-self._position // alignment) * alignment
        tensors: dict[str, TensorInfo] = {}
        for info in infos:
            if info.name in tensors:
                raise HeaderError(f"{self._file}: tensor {info.name!r} stands twice; convert the model anew")
            tensors[info.name] = TensorInfo(info.name, info.shape, info.type, base + info.offset)
        return tensors

    def _tensor(self, alignment: int) -> TensorInfo:
        """One tensor, its offset still counted from the start of the data."""
        name = self._name(MAX_NAME, "tensor name")
        dimensions = self._number("I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise ShapeError(f"{self._file}: tensor {name!r} has {dimensions} dimensions, not 1 to {MAX_DIMENSIONS}; {_AGAIN}")
        shape = tuple(self._number("Q") for _ in range(dimensions))[::-1]
        number, offset = self._number("I"), self._number("Q")
        kind = TENSOR_TYPES.get(number)
        if kind is None:
            raise UnknownDtypeError(f"{self._file}: tensor {name!r} has unknown type {number}; use one such as Q4_0 or Q4_K")
        if 0 in shape:
            raise ShapeError(f"{self._file}: tensor {name!r} is empty, shape {shape}; convert the model anew")
        if shape[-1] % kind.block:
            raise ShapeError(f"{self._file}: tensor {name!r}, {shape}, needs rows of a multiple of {kind.block}; {_AGAIN}")
        if offset % alignment:
            raise OffsetError(f"{self._file}: tensor {name!r} is not aligned to {alignment} bytes; {_AGAIN}")
        return TensorInfo(name, shape, kind, offset)

    def _require(self, size: int, what: str) -> None:
        if size > self._size - self._position:
            raise TruncatedFileError(f"{self._file} ends at byte {self._size}, inside {what}; {_AGAIN}")

    def _number(self, code: str) -> Any:
        size = struct.calcsize(code)
        self._require(size, "its header")
        (value,) = struct.unpack_from("<" + code, self._data, self._position)
        self._position += size
        return value

    def _raw_string(self, limit: int, what: str) -> bytes:
        """Called for each of some 100,000 tokens, so it checks with as few calls as it can."""
        begin = self._position + 8
        if begin > self._size:
            self._require(8, what)
        (length,) = _LENGTH.unpack_from(self._data, self._position)
        if length > limit:
            raise HeaderError(f"{self._file}: {what} claims {length} bytes, more than {limit}; {_AGAIN}")
        self._position = begin + length
        if self._position > self._size:
            self._position = begin
            self._require(length, what)
        return self._data[begin : begin + length].tobytes()

    def _name(self, limit: int, what: str) -> str:
        try:
            return self._raw_string(limit, what).decode("utf-8")
        except UnicodeDecodeError as fault:
            raise HeaderError(f"{self._file}: a {what} is not UTF-8; {_AGAIN}") from fault

    def _string(self, key: str) -> str:
        """Old vocabularies hold tokens that are broken UTF-8: their stray bytes become U+FFFD."""
        return self._raw_string(MAX_STRING, key).decode("utf-8", errors="replace")

    def _value(self, kind: int, key: str, depth: int) -> Any:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == _BOOL:
            return self._bools(1, key)[0]
        if kind == _STRING:
            return self._string(key)
        if kind == _ARRAY:
            return self._array(key, depth + 1)
        raise HeaderError(f"{self._file}: metadata {shown(key)} has unknown value type {kind}; {_AGAIN}")

    def _array(self, key: str, depth: int) -> list[Any]:
        kind, count = self._number("I"), self._number("Q")
        self._items += count
        if depth > MAX_DEPTH:
            raise HeaderError(f"{self._file}: metadata {shown(key)} nests arrays more than {MAX_DEPTH} deep; {_AGAIN}")
        if self._items > MAX_ITEMS:
            raise HeaderError(f"{self._file}: metadata {shown(key)} claims {count} items, more than {MAX_ITEMS} in all; {_AGAIN}")
        smallest = struct.calcsize(_SCALARS[kind]) if kind in _SCALARS else {_STRING: 8, _ARRAY: 12}.get(kind, 1)
        self._require(count * smallest, f"metadata {shown(key)}")
        if kind in _SCALARS:
            values = struct.unpack_from(f"<{count}{_SCALARS[kind]}", self._data, self._position)
            self._position += count * smallest
            return list(values)
        if kind == _BOOL:
            return self._bools(count, key)
        if kind == _STRING:
            return [self._string(key) for _ in range(count)]
        return [self._value(kind, key, depth) for _ in range(count)]

    def _bools(self, count: int, key: str) -> list[bool]:
        self._require(count, f"metadata {shown(key)}")
        values = bytes(self._data[self._position : self._position + count])
        if values.strip(b"\x00\x01"):
            raise HeaderError(f"{self._file}: metadata {shown(key)} holds a truth value that is neither 0 nor 1; {_AGAIN}")
        self._position += count
        return [bool(value) for value in values]
