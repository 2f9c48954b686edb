"""safetensors, read with suspicion and written as a stream.

A file is  u64 N (little-endian) | N bytes of JSON | data.  The JSON maps each name to {dtype, shape, data_offsets:
[begin, end]}, offsets counted from the end of the JSON; `__metadata__` maps strings to strings; trailing spaces pad it.
The data are one run of bytes without holes: sorted by offset, each tensor begins where the one before ends, and the file
ends where the last one does. (https://huggingface.co/docs/safetensors; every rule is checked before a byte is mapped.)
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from bitwright.artifact import strict_json
from bitwright.errors import (
    HeaderError,
    MissingTensorError,
    ModelNotFoundError,
    OffsetError,
    TensorFileError,
    TruncatedFileError,
    UnknownDtypeError,
)

HEADER_LIMIT = 100_000_000  # bytes of JSON, the limit of the format itself
LARGEST_SIZE = 2**63 - 1  # bytes, and elements, that one tensor may have
ALIGNMENT = 64  # bytes: our writer pads the header so that the data begin on a cache line
MOST_DIMENSIONS = 32
METADATA = "__metadata__"

# What numpy shows each stored type as: formats that numpy lacks appear as their raw bits, bool as bytes.
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("u1"),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "F8_E4M3": np.dtype("u1"),
    "F8_E5M2": np.dtype("u1"),
    "F8_E8M0": np.dtype("u1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "F32": np.dtype("<f4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
}


@dataclass(frozen=True)
class Entry:
    """One line of the header; offsets are bytes from the start of the data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class SafetensorsFile:
    """A file whose header has passed every check; tensors are read-only views of the mapped file.

    Raises `ModelNotFoundError`, `TruncatedFileError`, `HeaderError`, `OffsetError` or `UnknownDtypeError` on opening.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._entries, self._metadata, self._data_start, self.in_order = _open(self.path)
        self._bytes: npt.NDArray[np.uint8] | None = None

    def names(self) -> Sequence[str]:
        """All tensors, in the order of their bytes."""
        return tuple(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def entry(self, name: str) -> Entry:
        """Raises `MissingTensorError`."""
        if name not in self._entries:
            raise MissingTensorError(f"{self.path} has no tensor {name!r}; fetch or export the model again")
        return self._entries[name]

    def dtype(self, name: str) -> str:
        """A key of `DTYPES`: F32, F16, BF16, U8, ..."""
        return self.entry(name).dtype

    def shape(self, name: str) -> tuple[int, ...]:
        return self.entry(name).shape

    def nbytes(self, name: str) -> int:
        entry = self.entry(name)
        return entry.end - entry.begin

    def metadata(self) -> Mapping[str, str]:
        return dict(self._metadata)

    def view(self, name: str) -> npt.NDArray[Any]:
        """The tensor without a copy, read-only, bf16 as uint16; a copy only where the file leaves it unaligned."""
        entry = self.entry(name)
        dtype = DTYPES[entry.dtype]
        if self._bytes is None:
            try:
                self._bytes = np.memmap(self.path, np.uint8, "r").view(np.ndarray)
            except (OSError, ValueError) as fault:
                raise TensorFileError(f"cannot map {self.path}: {fault}; was it moved after it was opened?") from fault
        begin, end = self._data_start + entry.begin, self._data_start + entry.end
        if end > self._bytes.size:
            raise TruncatedFileError(f"{self.path} has shrunk since it was opened; restore it and load it again")
        tensor = self._bytes[begin:end].view(dtype).reshape(entry.shape)
        if not tensor.flags.aligned:
            tensor = tensor.copy()
            tensor.flags.writeable = False
        return tensor


def _open(path: Path) -> tuple[dict[str, Entry], dict[str, str], int, bool]:
    """Entries sorted by offset, metadata, where the data start, and whether the header lists them in that order."""
    if not path.exists():
        raise ModelNotFoundError(f"no file {path}; check the path")
    if not path.is_file():
        raise HeaderError(f"{path} is not a regular file; give the path of a .safetensors file")
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            header = _read_header(file, size, path)
    except OSError as fault:
        raise TensorFileError(f"cannot read {path}: {fault.strerror}; check its permissions") from fault
    fields = _parse_json(header, path)
    metadata = _check_metadata(fields.pop(METADATA, {}), path)
    listed = {name: _check_entry(name, value, path) for name, value in fields.items()}
    ordered = dict(sorted(listed.items(), key=lambda item: (item[1].begin, item[1].end)))
    data_start = 8 + len(header)
    _check_layout(ordered, size - data_start, path)
    return ordered, metadata, data_start, list(listed) == list(ordered)


def _read_header(file: BinaryIO, size: int, path: Path) -> bytes:
    if size < 8:
        raise TruncatedFileError(f"{path} has only {size} bytes, no safetensors header; fetch it again")
    (length,) = struct.unpack("<Q", file.read(8))
    if length > HEADER_LIMIT:
        raise HeaderError(f"{path} announces a header of {length} bytes, over the limit of {HEADER_LIMIT}; is it safetensors?")
    if 8 + length > size:
        raise TruncatedFileError(f"{path} ends inside its header ({size} bytes of at least {8 + length}); fetch it again")
    header: bytes = file.read(length)
    if len(header) != length:
        raise TruncatedFileError(f"{path} ends inside its header; fetch it again")
    return header


def _parse_json(header: bytes, path: Path) -> dict[str, Any]:
    if header[:1] != b"{":
        raise HeaderError(f"{path}: the header does not begin with '{{'; this is no safetensors file, or a damaged one")
    try:
        fields = strict_json.parse(header.rstrip(b" "))
        for name in fields:
            name.encode("utf-8")  # a lone surrogate, written as an escape, cannot be printed or written back
    except ValueError as fault:  # UnicodeEncodeError is one
        raise HeaderError(f"{path}: the header is not valid JSON ({str(fault)[:200]}); fetch the file again") from fault
    return dict(fields)


def _check_metadata(value: Any, path: Path) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise HeaderError(f"{path}: {METADATA} must map strings to strings; fetch the file again")
    return value


def _check_entry(name: str, value: Any, path: Path) -> Entry:
    """dtype, shape and offsets of one tensor, each of the right type, and agreeing on the number of bytes."""
    where = f"{path}: tensor {name[:200]!r}"
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise HeaderError(f"{where} must have exactly dtype, shape and data_offsets; fetch the file again")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise UnknownDtypeError(f"{where} has dtype {str(dtype)[:40]!r}; convert the model to one of {', '.join(DTYPES)}")
    if not _are_sizes(shape) or len(shape) > MOST_DIMENSIONS:
        raise HeaderError(f"{where} has an impossible shape {str(shape)[:80]}; fetch the file again")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise OffsetError(f"{where} has data_offsets {str(offsets)[:80]}: two whole numbers are needed; fetch the file again")
    begin, end = offsets
    if begin > end or end > LARGEST_SIZE:
        raise OffsetError(f"{where} runs from byte {begin} to byte {end}; fetch the file again")
    nbytes = size_of(dtype, shape)
    if nbytes > LARGEST_SIZE:
        raise HeaderError(f"{where} has an impossible shape {str(shape)[:80]}; fetch the file again")
    if nbytes != end - begin:
        raise OffsetError(f"{where}, {dtype} {shape}, needs {nbytes} bytes but has {end - begin}; fetch the file again")
    return Entry(dtype, tuple(shape), begin, end)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size <= LARGEST_SIZE for size in value)


def _check_layout(ordered: Mapping[str, Entry], data_size: int, path: Path) -> None:
    """No holes, no overlaps, and the file ends exactly where the data do."""
    position = 0
    for name, entry in ordered.items():
        if entry.begin != position:
            fault = "overlaps the one before it" if entry.begin < position else "leaves a hole before it"
            raise OffsetError(f"{path}: tensor {name[:200]!r} at byte {entry.begin} {fault} ({position}); fetch the file again")
        position = entry.end
    if position > data_size:
        raise TruncatedFileError(f"{path} ends early: {data_size} bytes of data where its header says {position}; fetch it again")
    if position < data_size:
        raise OffsetError(f"{path} has {data_size - position} bytes after its last tensor; fetch it again")


def size_of(dtype: str, shape: Sequence[int]) -> int:
    """Bytes that a tensor takes."""
    return math.prod(shape) * DTYPES[dtype].itemsize


def encode_header(entries: Mapping[str, tuple[str, Sequence[int]]], metadata: Mapping[str, str]) -> bytes:
    """Length and JSON for tensors laid out in the given order: the same entries always give the same bytes."""
    fields: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    position = 0
    for name, (dtype, shape) in entries.items():
        if name == METADATA:
            raise HeaderError(f"no tensor can be called {METADATA}; rename it")
        end = position + size_of(dtype, shape)
        fields[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    if len(text) > HEADER_LIMIT:
        raise HeaderError(f"a header of {len(text)} bytes is over the limit of {HEADER_LIMIT}; the model has too many tensors")
    return struct.pack("<Q", len(text)) + text


class SafetensorsWriter:
    """Writes the header first, then takes the tensors one at a time in the order of `entries`.

    `entries` maps a name to (dtype, shape), dtype a key of `DTYPES`. Memory: one tensor. Use it in a `with` block, which
    ends by flushing the file to the disk. Raises `OSError` as the file system does.
    """

    def __init__(
        self, path: str | Path, entries: Mapping[str, tuple[str, Sequence[int]]], metadata: Mapping[str, str] | None = None
    ) -> None:
        self._entries = {name: (dtype, tuple(shape)) for name, (dtype, shape) in entries.items()}
        self._waiting = list(reversed(self._entries))
        header = encode_header(self._entries, metadata or {})
        self._file = Path(path).open("xb")  # noqa: SIM115 - closed by __exit__
        self._file.write(header)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                if self._waiting:
                    raise MissingTensorError(f"{len(self._waiting)} tensors were not written, the first {self._waiting[-1]!r}")
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def write(self, name: str, tensor: npt.NDArray[Any]) -> None:
        """The next tensor, which must be the next entry, of its dtype and shape."""
        if not self._waiting or self._waiting[-1] != name:
            expected = repr(self._waiting[-1]) if self._waiting else "nothing more"
            raise MissingTensorError(f"tensors are written in the order of the header: {expected} is due, not {name!r}")
        dtype, shape = self._entries[name]
        if tensor.dtype != DTYPES[dtype] or tensor.shape != shape:
            raise OffsetError(f"tensor {name!r} is {tensor.dtype} {tensor.shape}, the header says {dtype} {shape}")
        self._waiting.pop()
        if tensor.size:
            self._file.write(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data)
