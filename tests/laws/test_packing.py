"""Packed rows: the native code equals its plain twin at every width and tail, and the bit order is the one promised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.core import Scheme
from bitwright.fitting import FITTING
from bitwright.formats.packing import pack, pack_reference, row_bytes, unpack, unpack_reference
from bitwright.formats.scales import SHARED
from bitwright.quantization.matrix import packed_from
from bitwright.rounding import ROUNDING
from laws.strategies import every_scheme, matrices

pytestmark = pytest.mark.usefixtures("short_training")

WIDTHS = range(2, 9)
TAILS = (*range(1, 34), 63, 64, 65, 127, 128, 129, 576)


def random_codes(rows: int, columns: int, bits: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 1 << bits, (rows, columns), dtype=np.uint8)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("columns", TAILS)
def test_native_equals_reference_at_every_tail(bits: int, columns: int) -> None:
    codes = random_codes(3, columns, bits)
    packed = pack(codes, bits)
    assert packed.shape == (3, row_bytes(columns, bits))
    assert np.array_equal(packed, pack_reference(codes, bits))
    assert np.array_equal(unpack(packed, columns, bits), codes)
    assert np.array_equal(unpack_reference(packed, columns, bits), codes)


@given(bits=st.sampled_from(WIDTHS), rows=st.integers(1, 9), columns=st.integers(1, 300), seed=st.integers(0, 2**32 - 1))
def test_round_trip(bits: int, rows: int, columns: int, seed: int) -> None:
    codes = random_codes(rows, columns, bits, seed)
    packed = pack(codes, bits)
    assert np.array_equal(packed, pack_reference(codes, bits))
    assert np.array_equal(unpack(packed, columns, bits), codes)


@given(bits=st.sampled_from(WIDTHS), columns=st.integers(1, 100), seed=st.integers(0, 2**32 - 1))
def test_unpack_reads_any_bytes(bits: int, columns: int, seed: int) -> None:
    """Padding bits of a hostile file change nothing."""
    data = np.random.default_rng(seed).integers(0, 256, (2, row_bytes(columns, bits)), dtype=np.uint8)
    assert np.array_equal(unpack(data, columns, bits), unpack_reference(data, columns, bits))


@pytest.mark.parametrize("bits", WIDTHS)
def test_the_bit_order_is_least_significant_first(bits: int) -> None:
    """A row read as one little-endian number is the sum of code_j * 2^(j b); its padding is zero."""
    codes = random_codes(1, 13, bits)
    number = sum(int(code) << (index * bits) for index, code in enumerate(codes[0]))
    assert int.from_bytes(pack(codes, bits)[0].tobytes(), "little") == number


def test_arrays_that_are_not_contiguous_are_packed_all_the_same() -> None:
    codes = random_codes(8, 66, 3)[::2, ::2]
    assert np.array_equal(pack(codes, 3), pack_reference(np.ascontiguousarray(codes), 3))


@pytest.mark.parametrize("scheme", every_scheme(groups=(-1, 0, 32)), ids=str)
def test_a_tensor_comes_back_from_its_packed_form(scheme: Scheme) -> None:
    for _, weights in matrices():
        tensor = ROUNDING["nearest"](weights, scheme, FITTING["minmax"])
        packed = packed_from(tensor)
        back = packed.qtensor()
        assert np.array_equal(back.codes, tensor.codes)
        assert back.params is not None and tensor.params is not None
        assert np.array_equal(back.params.scale, tensor.params.scale)
        assert (back.params.row_scale is None) == (scheme.scale not in SHARED)
        assert np.array_equal(packed.dequantize(), tensor.dequantize())


@pytest.mark.parametrize("spelling", ["int4-g32-srow5", "int3-g48-affine", "int8-channel", "fixed4-tensor"])
def test_rows_of_a_packed_tensor_are_the_rows_of_its_numbers(spelling: str) -> None:
    weights = dict(matrices())["normal"]
    packed = replace(packed_from(ROUNDING["nearest"](weights, Scheme.parse(spelling), FITTING["mse"])), rotation=64)
    assert np.array_equal(packed.rows(2, 5).dequantize(), packed.dequantize()[2:5])
