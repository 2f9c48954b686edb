"""Law 1, over the whole table of formats: every level survives, zero stays zero, order is kept, NaN is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core import Format
from bitwright.errors import NonFiniteError
from bitwright.formats import FORMATS
from bitwright.formats.uniform import Uniform
from laws.strategies import SCALED, TABLES

EVEN = [name for name in SCALED if isinstance(FORMATS[name], Uniform)]
FULL_PRECISION = [name for name, format in FORMATS.items() if not format.scaled]
CODE_DTYPE = {"fp32": np.uint32, "fp16": np.uint16, "bf16": np.uint16}
EXPONENT_MASK = {"fp16": 0x7C00, "bf16": 0x7F80, "fp32": 0x7F800000}

finite_lists = st.lists(st.floats(-60000, 60000, width=32), min_size=1, max_size=64)


def all_codes(name: str) -> npt.NDArray[Any]:
    """Every code of the format that stands for a number; for fp32 a spread of a million."""
    if name not in CODE_DTYPE:
        codes = np.arange(1 << FORMATS[name].bits, dtype=np.uint8)
        return codes[np.isfinite(FORMATS[name].decode(codes))]
    codes = np.arange(0, 1 << FORMATS[name].bits, 4099 if name == "fp32" else 1, dtype=np.uint64).astype(CODE_DTYPE[name])
    return codes[(codes & EXPONENT_MASK[name]) != EXPONENT_MASK[name]]


@pytest.mark.parametrize("name", FORMATS)
def test_the_table_agrees_with_itself(name: str) -> None:
    format = FORMATS[name]
    assert isinstance(format, Format)
    assert format.name == name
    assert format.summary


@pytest.mark.parametrize("name", FORMATS)
def test_every_level_comes_back(name: str) -> None:
    """And every code, but for the zero that is negative too."""
    codes = all_codes(name)
    back = FORMATS[name].encode(FORMATS[name].decode(codes))
    assert np.array_equal(FORMATS[name].decode(back), FORMATS[name].decode(codes))
    negative_zero = (FORMATS[name].decode(codes) == 0) & (codes > 0) if name in TABLES else np.zeros(len(codes), bool)
    assert np.array_equal(back[~negative_zero], codes[~negative_zero]) or negative_zero.sum() == 1


@pytest.mark.parametrize("name", EVEN)
def test_the_levels_are_all_there(name: str) -> None:
    """2^bits levels one apart, with one more below zero than above."""
    levels = FORMATS[name].decode(all_codes(name))
    half = 1 << (FORMATS[name].bits - 1)
    assert np.array_equal(levels, np.arange(-half, half, dtype=np.float32))


@pytest.mark.parametrize("name", FORMATS)
def test_zero_stays_zero(name: str) -> None:
    zeros = np.zeros((3, 5), np.float32)
    decoded = FORMATS[name].decode(FORMATS[name].encode(zeros))
    assert decoded.shape == zeros.shape
    assert decoded.dtype == np.float32
    assert not decoded.any()


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=25)
@given(values=finite_lists)
def test_encode_is_monotone(name: str, values: list[float]) -> None:
    ordered = np.sort(np.array(values, np.float32))
    assert np.all(np.diff(FORMATS[name].decode(FORMATS[name].encode(ordered))) >= 0)


@pytest.mark.parametrize("name", SCALED)
@settings(max_examples=25)
@given(values=finite_lists)
def test_encode_takes_the_nearest_level(name: str, values: list[float]) -> None:
    """No level is closer than the chosen one."""
    x = np.array(values, np.float32)
    levels = FORMATS[name].decode(all_codes(name))
    chosen = FORMATS[name].decode(FORMATS[name].encode(x))
    closest = np.abs(levels[None, :].astype(np.float64) - x[:, None]).min(axis=1)
    assert np.array_equal(np.abs(chosen.astype(np.float64) - x), closest)


@pytest.mark.parametrize("name", ["fp16", "bf16"])
@given(values=finite_lists)
def test_halves_take_the_nearest_number(name: str, values: list[float]) -> None:
    """No neighbouring code decodes to a closer number, and ties go to the even code."""
    x = np.array(values, np.float32)
    codes = FORMATS[name].encode(x)
    error = np.abs(FORMATS[name].decode(codes) - x)
    for step in (-1, 1):
        neighbours = (codes.astype(np.int64) + step).clip(0, 0xFFFF).astype(np.uint16)
        with np.errstate(invalid="ignore"):
            other = np.abs(FORMATS[name].decode(neighbours) - x)
        comparable = np.isfinite(other) & (neighbours != codes) & ((codes & 0x7FFF) != 0)
        assert np.all(error[comparable] <= other[comparable])
        tied = comparable & (error == other)
        assert not np.any(codes[tied] & 1)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(name: str, bad: float) -> None:
    values = np.ones((4, 8), np.float32)
    values[2, 3] = bad
    with pytest.raises(NonFiniteError, match="1 NaN or infinite value"):
        FORMATS[name].encode(values)


def test_large_finite_values_are_not_mistaken_for_infinity() -> None:
    """Their sum overflows fp32; each of them is still a number."""
    values = np.full(1000, np.finfo(np.float32).max, np.float32)
    assert np.array_equal(FORMATS["fp32"].decode(FORMATS["fp32"].encode(values)), values)


@pytest.mark.parametrize(("name", "value", "cure"), [("fp16", 65520.0, "bf16 or fp32"), ("bf16", 3.4e38, "fp32")])
def test_overflow_is_refused_with_a_cure(name: str, value: float, cure: str) -> None:
    with pytest.raises(NonFiniteError, match=cure):
        FORMATS[name].encode(np.array([1.0, value], np.float32))


@pytest.mark.parametrize("name", SCALED)
def test_the_caller_keeps_its_array(name: str) -> None:
    values = np.linspace(-3, 3, 64, dtype=np.float32)
    before = values.copy()
    FORMATS[name].encode(values)
    assert np.array_equal(values, before)
