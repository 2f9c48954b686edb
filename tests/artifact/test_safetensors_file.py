"""The tensor file: what the safetensors library writes is read alike and the other way round; every lie has its named error."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from bitwright.artifact.safetensors_file import HEADER_LIMIT, SafetensorsFile, SafetensorsWriter, encode_header
from bitwright.errors import (
    HeaderError,
    MissingTensorError,
    ModelNotFoundError,
    OffsetError,
    TensorFileError,
    TruncatedFileError,
    UnknownDtypeError,
)

TENSORS: dict[str, Any] = {
    "a.codes": np.arange(15, dtype=np.uint8).reshape(3, 5),  # an odd number of bytes: what follows is unaligned
    "a.scale": np.array([0.5, -1.0, 2.0], np.float16),
    "norm": np.arange(4, dtype=np.float32),
    "scalar": np.array(7, np.int64),
    "empty": np.zeros((0, 4), np.float64),
}
KINDS = {"uint8": "U8", "float16": "F16", "float32": "F32", "int64": "I64", "float64": "F64"}


def write(path: Path, tensors: dict[str, Any] = TENSORS, metadata: dict[str, str] | None = None) -> Path:
    with SafetensorsWriter(path, {name: (KINDS[x.dtype.name], x.shape) for name, x in tensors.items()}, metadata) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)
    return path


def raw(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: object = "U8", shape: object = (4,), offsets: object = (0, 4)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_ours_is_read_by_the_safetensors_library(tmp_path: Path) -> None:
    write(tmp_path / "x.safetensors", metadata={"format": "pt"})
    with safe_open(tmp_path / "x.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}
        assert set(file.keys()) == set(TENSORS)
        for name, tensor in TENSORS.items():
            np.testing.assert_array_equal(file.get_tensor(name), tensor)


@pytest.mark.parametrize("writer", [write, lambda path: save_file(TENSORS, path, {"format": "pt"})], ids=["ours", "theirs"])
def test_reads_back(tmp_path: Path, writer: Callable[[Path], object]) -> None:
    writer(tmp_path / "x.safetensors")
    file = SafetensorsFile(tmp_path / "x.safetensors")
    assert set(file.names()) == set(TENSORS)
    for name, tensor in TENSORS.items():
        view = file.view(name)
        np.testing.assert_array_equal(view, tensor)
        assert (view.dtype, view.shape, file.nbytes(name)) == (tensor.dtype, tensor.shape, tensor.nbytes)
        assert (file.dtype(name), file.shape(name)) == (KINDS[tensor.dtype.name], tensor.shape)
        assert not view.flags.writeable and view.flags.aligned


def test_a_view_is_the_mapped_file_and_not_a_copy(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors")
    file = SafetensorsFile(path)
    view = file.view("a.codes")
    with path.open("r+b") as handle:
        handle.seek(-sum(tensor.nbytes for tensor in TENSORS.values()), 2)
        handle.write(b"\xff")
    assert view[0, 0] == 255


def test_bf16_is_shown_as_its_bits(tmp_path: Path) -> None:
    bits = np.array([0x3F80, 0xC000], np.uint16)
    with SafetensorsWriter(tmp_path / "x.safetensors", {"b": ("BF16", (2,))}) as writer:
        writer.write("b", bits)
    np.testing.assert_array_equal(SafetensorsFile(tmp_path / "x.safetensors").view("b"), bits)


def test_data_begin_on_a_cache_line(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors")
    assert (8 + struct.unpack("<Q", path.read_bytes()[:8])[0]) % 64 == 0


ONE = entry()
FAULTS: dict[str, tuple[bytes, type[TensorFileError]]] = {
    "empty": (b"", TruncatedFileError),
    "seven bytes": (b"\2\0\0\0\0\0\0", TruncatedFileError),
    "header beyond the file": (raw({"a": ONE}, b"1234", 4000), TruncatedFileError),
    "header over the limit": (raw({"a": ONE}, b"1234", HEADER_LIMIT + 1), HeaderError),
    "header of 2^64 - 1": (raw({"a": ONE}, b"1234", 2**64 - 1), HeaderError),
    "no header": (raw(b""), HeaderError),
    "another kind of file": (b"\x80\x02}q\x00" * 100, HeaderError),
    "a list": (raw([1, 2]), HeaderError),
    "leading space": (raw(b" {}"), HeaderError),
    "not UTF-8": (raw(b'{"\xff": 1}'), HeaderError),
    "cut JSON": (raw(b'{"a": {"dtype"'), HeaderError),
    "NaN in JSON": (raw(b'{"a": NaN}'), HeaderError),
    "two documents": (raw(b"{} {}"), HeaderError),
    "deep nesting": (raw(b'{"a":' + b"[" * 100_000), HeaderError),
    "a number of 10,000 digits": (raw(b'{"a": ' + b"9" * 10_000 + b"}"), HeaderError),
    "a lone surrogate": (raw(rb'{"\ud800": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}', b"1234"), HeaderError),
    "a name twice": (raw(b'{"a": %b, "a": %b}' % ((json.dumps(ONE).encode(),) * 2), b"1234"), HeaderError),
    "a key twice": (raw(b'{"a": {"dtype": "U8", "dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}', b"1234"), HeaderError),
    "metadata no strings": (raw({"__metadata__": {"a": 1}}), HeaderError),
    "metadata a list": (raw({"__metadata__": []}), HeaderError),
    "entry a number": (raw({"a": 1}), HeaderError),
    "entry lacks a key": (raw({"a": {"dtype": "U8", "shape": [4]}}, b"1234"), HeaderError),
    "entry has another key": (raw({"a": ONE | {"x": 1}}, b"1234"), HeaderError),
    "unknown dtype": (raw({"a": entry("F4")}, b"1234"), UnknownDtypeError),
    "dtype a list": (raw({"a": entry(["U8"])}, b"1234"), UnknownDtypeError),
    "negative size": (raw({"a": entry(shape=[-4])}, b"1234"), HeaderError),
    "two negative sizes": (raw({"a": entry(shape=[-2, -2])}, b"1234"), HeaderError),
    "boolean size": (raw({"a": entry(shape=[4, True])}, b"1234"), HeaderError),
    "float size": (raw({"a": entry(shape=[4.0])}, b"1234"), HeaderError),
    "shape a string": (raw({"a": entry(shape="4")}, b"1234"), HeaderError),
    "size over 2^63": (raw({"a": entry(shape=[2**64])}, b"1234"), HeaderError),
    "product over 2^64": (raw({"a": entry(shape=[2**32, 2**32, 4])}, b"1234"), HeaderError),
    "product wraps to 4": (raw({"a": entry(shape=[2**62 + 1, 4])}, b"1234"), HeaderError),
    "a thousand dimensions": (raw({"a": entry(shape=[1] * 1000)}, b"1234"), HeaderError),
    "shape too small": (raw({"a": entry(shape=[3])}, b"1234"), OffsetError),
    "shape too large": (raw({"a": entry(shape=[5])}, b"1234"), OffsetError),
    "item size": (raw({"a": entry("F16")}, b"1234"), OffsetError),
    "three offsets": (raw({"a": entry(offsets=[0, 4, 4])}, b"1234"), OffsetError),
    "negative offset": (raw({"a": entry(offsets=[-4, 0])}, b"1234"), OffsetError),
    "ends before it begins": (raw({"a": entry(offsets=[4, 0])}, b"1234"), OffsetError),
    "first byte unused": (raw({"a": entry(offsets=[1, 5])}, b"12345"), OffsetError),
    "hole": (raw({"a": ONE, "b": entry(offsets=[5, 9])}, b"123456789"), OffsetError),
    "overlap": (raw({"a": ONE, "b": entry(offsets=[3, 7])}, b"1234567"), OffsetError),
    "same bytes twice": (raw({"a": ONE, "b": ONE}, b"1234"), OffsetError),
    "data cut": (raw({"a": ONE}, b"123"), TruncatedFileError),
    "no data": (raw({"a": ONE}), TruncatedFileError),
    "bytes after the end": (raw({"a": ONE}, b"12345"), OffsetError),
    "no tensor but bytes": (raw({}, b"1"), OffsetError),
}


@pytest.mark.parametrize("case", FAULTS)
def test_named_errors(tmp_path: Path, case: str) -> None:
    data, error = FAULTS[case]
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(error) as caught:
        SafetensorsFile(tmp_path / "x.safetensors")
    assert type(caught.value) is error
    message = str(caught.value)
    assert "\n" not in message and "x.safetensors" in message and len(message) < 1000


def test_a_header_may_list_its_tensors_in_any_order(tmp_path: Path) -> None:
    """As old writers did. What matters is the order of the bytes."""
    (tmp_path / "x.safetensors").write_bytes(raw({"b": entry(offsets=[4, 8]), "a": entry()}, b"12345678"))
    file = SafetensorsFile(tmp_path / "x.safetensors")
    assert (file.names(), file.in_order) == (("a", "b"), False)
    assert bytes(file.view("b")) == b"5678"


def test_absent_file_tensor_and_directory(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="check the path"):
        SafetensorsFile(tmp_path / "none.safetensors")
    with pytest.raises(HeaderError, match="regular file"):
        SafetensorsFile(tmp_path)
    with pytest.raises(MissingTensorError, match="'nothing'"):
        SafetensorsFile(write(tmp_path / "x.safetensors")).view("nothing")


def test_a_file_that_shrinks_after_it_was_opened(tmp_path: Path) -> None:
    file = SafetensorsFile(write(tmp_path / "x.safetensors"))
    (tmp_path / "x.safetensors").write_bytes(b"short")
    with pytest.raises(TruncatedFileError, match="shrunk"):
        file.view("scalar")


def test_the_writer_takes_what_it_announced_and_nothing_else(tmp_path: Path) -> None:
    entries = {"a": ("U8", (4,)), "b": ("F32", (1,))}
    four = np.zeros(4, np.uint8)
    with pytest.raises(MissingTensorError, match="'a' is due"), SafetensorsWriter(tmp_path / "1", entries) as writer:
        writer.write("b", four)
    with pytest.raises(OffsetError, match="the header says"), SafetensorsWriter(tmp_path / "2", entries) as writer:
        writer.write("a", four.astype(np.int8))
    with pytest.raises(MissingTensorError, match="were not written"), SafetensorsWriter(tmp_path / "3", entries) as writer:
        writer.write("a", four)
    with pytest.raises(HeaderError, match="__metadata__"):
        encode_header({"__metadata__": ("U8", (1,))}, {})


def read_all(path: Path) -> None:
    file = SafetensorsFile(path)
    for name in file.names():
        file.view(name).tobytes()


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_ends_in_a_named_error_or_in_a_valid_file(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "x.safetensors"
    path.unlink(missing_ok=True)
    content = bytearray(write(path).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["flip", "byte", "cut", "insert", "delete"]))
        if kind == "flip":
            content[place] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "byte":
            content[place] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del content[place + 1 :]
        elif kind == "insert":
            content[place:place] = data.draw(st.binary(min_size=1, max_size=9))
        else:
            del content[place : place + data.draw(st.integers(1, 9))]
        content = content or bytearray(b"\0")
    path.write_bytes(content)
    try:
        read_all(path)
    except TensorFileError:
        pass


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**65) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "F16", "BF16", "F64", "F4"]) | JSON,
        "shape": st.lists(st.integers(-1, 9) | st.integers(2**31, 2**64), max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(-1, 64) | st.integers(2**31, 2**64), min_size=2, max_size=2) | JSON,
    }
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.dictionaries(st.text(max_size=3), ENTRY | JSON, max_size=4), size=st.integers(0, 64))
def test_invented_headers(tmp_path: Path, header: dict[str, Any], size: int) -> None:
    (tmp_path / "x.safetensors").write_bytes(raw(header, bytes(size)))
    try:
        read_all(tmp_path / "x.safetensors")
    except TensorFileError:
        pass


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shapes=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(lambda name: name != "__metadata__"),
        st.lists(st.integers(0, 5), max_size=3),
        max_size=5,
    )
)
def test_whatever_is_written_is_read(tmp_path: Path, shapes: dict[str, list[int]]) -> None:
    (tmp_path / "x.safetensors").unlink(missing_ok=True)
    tensors = {name: np.full(shape, index, np.float32) for index, (name, shape) in enumerate(shapes.items())}
    file = SafetensorsFile(write(tmp_path / "x.safetensors", tensors))
    assert file.in_order or any(tensor.size == 0 for tensor in tensors.values())
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(file.view(name), tensor)
