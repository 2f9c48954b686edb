"""The GGUF reader: what the `gguf` package writes comes back; what nobody should write is refused by name."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitwright.errors import (
    BitwrightError,
    HeaderError,
    MissingTensorError,
    ModelNotFoundError,
    OffsetError,
    ShapeError,
    TruncatedFileError,
    UnknownDtypeError,
)
from bitwright.models.gguf_file import MAX_DEPTH, MAX_ITEMS, GGUFFile
from bitwright.models.gguf_types import decode

U8, STRING, ARRAY, U32 = 0, 8, 9, 4


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key.encode()) + struct.pack("<I", kind) + value


def tensor(name: str = "t", shape: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    """`shape` as the file has it: columns first."""
    return text(name.encode()) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def header_of(entries: list[bytes], tensors: list[bytes], version: int = 3, counts: tuple[int, int] | None = None) -> bytes:
    """All before the padding; `counts` lies about how many tensors and entries there are."""
    return b"GGUF" + struct.pack("<IQQ", version, *(counts or (len(tensors), len(entries)))) + b"".join(entries + tensors)


def file_of(
    entries: list[bytes] | None = None, tensors: list[bytes] | None = None, data: int = 4096, version: int = 3, counts: Any = None
) -> bytes:
    """A GGUF file from its parts, all of its data zeros."""
    header = header_of(entries or [], tensors or [], version, counts)
    return header + bytes(-len(header) % 32) + bytes(data)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def writer(content: bytes) -> Path:
        path = tmp_path / "some.gguf"
        path.write_bytes(content)
        return path

    return writer


METADATA: dict[str, tuple[str, Any]] = {
    "a.uint8": ("add_uint8", 255),
    "a.int8": ("add_int8", -128),
    "a.uint16": ("add_uint16", 65535),
    "a.int16": ("add_int16", -32768),
    "a.uint32": ("add_uint32", 2**32 - 1),
    "a.int32": ("add_int32", -(2**31)),
    "a.uint64": ("add_uint64", 2**64 - 1),
    "a.int64": ("add_int64", -(2**63)),
    "a.float32": ("add_float32", 0.5),
    "a.float64": ("add_float64", 0.1),
    "a.bool": ("add_bool", True),
    "a.string": ("add_string", "mañana \N{SNOWMAN}\n\x00"),
    "a.strings": ("add_array", ["", "x", "é"]),
    "a.numbers": ("add_array", [1, -2, 3]),
    "a.floats": ("add_array", [1.5, -2.5]),
    "a.bools": ("add_array", [True, False]),
    "a.nested": ("add_array", [[1, 2], [3]]),
}


def test_everything_the_package_writes_comes_back(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "all.gguf", "llama")
    for key, (method, value) in METADATA.items():
        getattr(writer, method)(key, value)
    matrix = np.arange(96, dtype=np.float32).reshape(3, 32)
    vector = np.arange(5, dtype=np.float16)
    packed = gguf.quants.quantize(matrix, gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("matrix", matrix)
    writer.add_tensor("vector", vector)
    writer.add_tensor("packed", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    file = GGUFFile(tmp_path / "all.gguf")
    assert {key: file.metadata[key] for key in METADATA} == {key: value for key, (_, value) in METADATA.items()}
    assert file.names() == ["matrix", "vector", "packed"]
    assert [file.shape(name) for name in file.names()] == [(3, 32), (5,), (3, 32)]
    assert [file.type_name(name) for name in file.names()] == ["F32", "F16", "Q8_0"]
    np.testing.assert_array_equal(decode("F32", file.raw("matrix"), (3, 32)).dequantize(), matrix)
    np.testing.assert_array_equal(decode("F16", file.raw("vector"), (5,)).dequantize(), vector)
    np.testing.assert_array_equal(file.raw("packed"), packed)
    assert not file.raw("matrix").flags.writeable
    with pytest.raises(MissingTensorError, match="nothing"):
        file.raw("nothing")


@pytest.mark.parametrize("alignment", [1, 8, 64, 4096])
def test_alignment_is_followed(write: Callable[[bytes], Path], alignment: int) -> None:
    header = header_of([entry("general.alignment", U32, struct.pack("<I", alignment))], [tensor()])
    padded = header + bytes(-len(header) % alignment)
    path = write(padded + np.arange(32, dtype=np.float32).tobytes())
    assert decode("F32", GGUFFile(path).raw("t"), (32,)).dequantize().tolist() == list(range(32))


def nested(depth: int) -> bytes:
    value = struct.pack("<IQB", U8, 1, 7)
    for _ in range(depth - 1):
        value = struct.pack("<IQ", ARRAY, 1) + value
    return entry("deep", ARRAY, value)


ATTACKS: dict[str, tuple[bytes, type[BitwrightError]]] = {
    "empty": (b"", TruncatedFileError),
    "three bytes": (b"GGU", HeaderError),
    "not GGUF": (b"PK\x03\x04" + bytes(60), HeaderError),
    "header cut": (file_of()[:10], TruncatedFileError),
    "big-endian": (b"GGUF" + struct.pack(">I", 3) + bytes(64), HeaderError),
    "version 1": (file_of(version=1), HeaderError),
    "version 4": (file_of(version=4), HeaderError),
    "version 0": (file_of(version=0), HeaderError),
    "more tensors than bytes": (file_of(counts=(2**63, 0)), TruncatedFileError),
    "more metadata than bytes": (file_of(counts=(0, 2**64 - 1)), TruncatedFileError),
    "key too long": (file_of([struct.pack("<Q", 2**40)], data=64), HeaderError),
    "key not UTF-8": (file_of([text(b"\xff\xfe") + struct.pack("<IB", U8, 1)]), HeaderError),
    "key twice": (file_of([entry("a", U8, b"\1")] * 2), HeaderError),
    "string leaves the file": (file_of([entry("a", STRING, struct.pack("<Q", 5000))]), TruncatedFileError),
    "string claims exabytes": (file_of([entry("a", STRING, struct.pack("<Q", 2**62))]), HeaderError),
    "unknown value type": (file_of([entry("a", 13, bytes(8))]), HeaderError),
    "unknown item type": (file_of([entry("a", ARRAY, struct.pack("<IQ", 99, 3))]), HeaderError),
    "neither true nor false": (file_of([entry("a", 7, b"\2")]), HeaderError),
    "array leaves the file": (file_of([entry("a", ARRAY, struct.pack("<IQ", U8, 10_000))]), TruncatedFileError),
    "array claims exabytes": (file_of([entry("a", ARRAY, struct.pack("<IQ", U8, 2**63))]), HeaderError),
    "arrays too many in all": (file_of([entry("a", ARRAY, struct.pack("<IQ", U8, MAX_ITEMS + 1))]), HeaderError),
    "arrays too deep": (file_of([nested(MAX_DEPTH + 1)]), HeaderError),
    "alignment no power of two": (file_of([entry("general.alignment", U32, struct.pack("<I", 48))]), HeaderError),
    "alignment zero": (file_of([entry("general.alignment", U32, bytes(4))]), HeaderError),
    "alignment a string": (file_of([entry("general.alignment", STRING, text(b"32"))]), HeaderError),
    "no dimensions": (file_of(tensors=[tensor(shape=())]), ShapeError),
    "five dimensions": (file_of(tensors=[tensor(shape=(1, 1, 1, 1, 32))]), ShapeError),
    "empty tensor": (file_of(tensors=[tensor(shape=(32, 0))]), ShapeError),
    "row no multiple of the block": (file_of(tensors=[tensor(shape=(33, 2), kind=2)]), ShapeError),
    "unknown tensor type": (file_of(tensors=[tensor(kind=4)]), UnknownDtypeError),
    "tensor name too long": (file_of(tensors=[tensor(name="n" * 257)]), HeaderError),
    "tensor twice": (file_of(tensors=[tensor(), tensor(offset=128)]), HeaderError),
    "not aligned": (file_of(tensors=[tensor(offset=4)]), OffsetError),
    "overlap": (file_of(tensors=[tensor(), tensor("u", offset=96)]), OffsetError),
    "starts behind the end": (file_of(tensors=[tensor(offset=2**62)]), OffsetError),
    "ends behind the end": (file_of(tensors=[tensor(shape=(32, 33))]), TruncatedFileError),
    "product overflows": (file_of(tensors=[tensor(shape=(2**62, 2**62, 2**62))]), TruncatedFileError),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused_by_name(write: Callable[[bytes], Path], name: str) -> None:
    content, error = ATTACKS[name]
    path = write(content)
    with pytest.raises(error) as caught:
        GGUFFile(path)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    assert "some.gguf" in str(caught.value)


def test_depth_up_to_the_limit_is_read(write: Callable[[bytes], Path]) -> None:
    assert GGUFFile(write(file_of([nested(MAX_DEPTH)]))).metadata["deep"] == [[[[7]]]]


def test_broken_utf8_in_values_is_replaced(write: Callable[[bytes], Path]) -> None:
    assert GGUFFile(write(file_of([entry("a", STRING, text(b"\xe2\x28"))]))).metadata["a"] == "\N{REPLACEMENT CHARACTER}("


def test_missing_files_and_directories_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(ModelNotFoundError):
            GGUFFile(path)


VALID = file_of(
    [
        entry("general.architecture", STRING, text(b"llama")),
        entry("words", ARRAY, struct.pack("<IQ", STRING, 2) + text(b"one") + text(b"two")),
        nested(3),
        entry("flag", 7, b"\1"),
    ],
    [tensor("a", (32, 4), 8), tensor("b", (32,), 0, 160), tensor("c", (256, 2), 12, 288)],
    data=288 + 2 * 144,
)


@given(cut=st.integers(0, len(VALID) - 1))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_truncation_is_refused(write: Callable[[bytes], Path], cut: int) -> None:
    with pytest.raises(BitwrightError):
        GGUFFile(write(VALID[:cut]))


damage = st.one_of(
    st.tuples(st.integers(0, len(VALID) - 1), st.binary(min_size=1, max_size=2)),
    st.tuples(st.integers(0, 400), st.sampled_from([2**64 - 1, 2**63, 2**32, 2**31, 255, 0]).map(lambda n: struct.pack("<Q", n))),
)


@given(damages=st.lists(damage, min_size=1, max_size=4))
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_ends_in_named_errors_only(write: Callable[[bytes], Path], damages: list[tuple[int, bytes]]) -> None:
    content = bytearray(VALID)
    for position, replacement in damages:
        content[position : position + len(replacement)] = replacement[: len(content) - position]
    try:
        file = GGUFFile(write(bytes(content)))
        with np.errstate(all="ignore"):
            for name in file.names():
                decode(file.type_name(name), file.raw(name), file.shape(name)).dequantize()
    except BitwrightError as fault:
        assert str(fault)
