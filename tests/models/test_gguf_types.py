"""Decoding of GGUF tensor types against the `gguf` package, number for number."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from bitwright.errors import NonFiniteError, UnknownDtypeError
from bitwright.models.base import Dense, Packed
from bitwright.models.gguf_types import CHUNK, TENSOR_TYPES, decode

DECODABLE = [kind.name for kind in TENSOR_TYPES.values() if kind.decodable]
QUANTIZABLE = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4"]
PACKED = {"Q4_0": "int4-g32", "Q5_0": "int5-g32", "Q8_0": "int8-g32"}
SIZES = {kind.name: (kind.block, kind.size) for kind in TENSOR_TYPES.values()}


def expected(name: str, raw: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(raw, Kind[name]).reshape(shape)


def random_bytes(name: str, rows: int, blocks: int) -> np.ndarray:
    """(rows, row bytes): any bytes are valid, but for the scales (first two bytes) of packed types, which must be finite."""
    rng = np.random.default_rng(len(name) + rows)
    block, size = SIZES[name]
    raw = rng.integers(0, 256, (rows * blocks, size), dtype=np.uint8)
    if name in PACKED:
        raw[:, :2] = rng.normal(size=(rows * blocks, 1)).astype(np.float16).view(np.uint8)
    return raw.reshape(rows, blocks * size)


def test_table_agrees_with_the_package() -> None:
    package = {kind.name: sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert {name: package[name] for name in DECODABLE} == {name: SIZES[name] for name in DECODABLE}
    assert {kind.value: kind.name for kind in Kind}.items() <= {
        number: kind.name for number, kind in TENSOR_TYPES.items()
    }.items()


def test_all_that_the_package_decodes_is_decoded() -> None:
    for kind, (block, size) in gguf.GGML_QUANT_SIZES.items():
        try:
            gguf.quants.dequantize(np.zeros((1, size), np.uint8), kind)
        except NotImplementedError:
            continue
        assert decode(kind.name, np.zeros((1, size), np.uint8), (1, block)).shape == (1, block)


@pytest.mark.parametrize("name", QUANTIZABLE)
def test_quantized_numbers_decode_as_in_the_package(name: str) -> None:
    values = np.random.default_rng(3).normal(size=(7, 512)).astype(np.float32)
    values[2] = 0
    raw = gguf.quants.quantize(values, Kind[name]).view(np.uint8).reshape(7, -1)
    np.testing.assert_array_equal(decode(name, raw, (7, 512)).dequantize(), expected(name, raw, (7, 512)))


@pytest.mark.parametrize("name", DECODABLE)
def test_any_bytes_decode_as_in_the_package(name: str) -> None:
    raw = random_bytes(name, 5, 3)
    shape = (5, 3 * SIZES[name][0])
    with np.errstate(all="ignore"):
        decoded = decode(name, raw, shape).dequantize()
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, expected(name, raw, shape))


@pytest.mark.parametrize("name", DECODABLE)
def test_vectors_and_tensors_of_three_dimensions_are_dense(name: str) -> None:
    columns = SIZES[name][0] * 2
    vector, cube = random_bytes(name, 1, 2), random_bytes(name, 6, 2)
    with np.errstate(all="ignore"):
        for raw, shape in ((vector, (columns,)), (cube, (2, 3, columns))):
            tensor = decode(name, raw, shape)
            assert isinstance(tensor, Dense)
            np.testing.assert_array_equal(tensor.dequantize(), expected(name, raw, shape))


@pytest.mark.parametrize(("name", "scheme"), PACKED.items())
def test_exact_integer_types_stay_packed(name: str, scheme: str) -> None:
    raw = random_bytes(name, 4, 2)
    tensor = decode(name, raw, (4, 64))
    assert isinstance(tensor, Packed)
    assert (str(tensor.scheme), tensor.scale.dtype, tensor.zero_point) == (scheme, np.float16, None)
    assert tensor.scheme.stored_bits((4, 64)) == 8 * raw.size  # nothing is lost and nothing added


def test_decoding_in_chunks_changes_nothing() -> None:
    rows = 3 * CHUNK // 4096 + 1
    for name in ("Q4_0", "Q4_1", "Q6_K"):
        raw = np.tile(random_bytes(name, 1, 4096 // SIZES[name][0]), (rows, 1))
        with np.errstate(all="ignore"):
            decoded = decode(name, raw, (rows, 4096)).dequantize()
            np.testing.assert_array_equal(decoded, np.tile(expected(name, raw[:1], (1, 4096)), (rows, 1)))


def test_plain_types_are_views() -> None:
    raw = random_bytes("F16", 4, 32)
    tensor = decode("F16", raw, (4, 32))
    assert isinstance(tensor, Dense)
    assert np.shares_memory(tensor.values, raw)


@pytest.mark.parametrize("name", PACKED)
def test_a_scale_that_is_no_number_is_refused(name: str) -> None:
    raw = random_bytes(name, 4, 2)
    raw[1, :2] = np.array([np.nan], np.float16).view(np.uint8)
    with pytest.raises(NonFiniteError, match=name):
        decode(name, raw, (4, 64))


@pytest.mark.parametrize("name", [kind.name for kind in TENSOR_TYPES.values() if not kind.decodable])
def test_types_without_weights_are_refused(name: str) -> None:
    block, size = SIZES[name]
    with pytest.raises(UnknownDtypeError, match=name):
        decode(name, np.zeros((2, size), np.uint8), (2, block))
