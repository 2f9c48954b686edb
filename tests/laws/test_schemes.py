"""A scheme's spelling reads back to the same scheme, its bits are the bytes' own, and misfits are refused with a cure."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.core import Scheme
from bitwright.errors import SchemeError
from bitwright.fitting import FITTING
from bitwright.formats import FORMATS
from bitwright.formats.packing import pack
from bitwright.formats.scales import SHARED, STORED_DTYPE
from bitwright.quantization.matrix import packed_from
from bitwright.rounding import ROUNDING
from laws.strategies import COLUMNS, every_scheme

ALL = [*every_scheme(), *(Scheme(name) for name, format in FORMATS.items() if not format.scaled)]


@pytest.mark.parametrize("scheme", ALL, ids=str)
def test_spelling_reads_back(scheme: Scheme) -> None:
    assert Scheme.parse(str(scheme)) == scheme
    assert str(Scheme.parse(str(scheme))) == str(scheme)


@given(st.data())
def test_spelling_reads_back_for_any_group(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([name for name, format in FORMATS.items() if format.scaled]))
    affine, group = data.draw(st.booleans()) and FORMATS[name].affine, data.draw(st.integers(1, 10**6))
    scales = [scale for scale in FORMATS[name].scales if not (affine and scale in SHARED)]
    scheme = Scheme(name, group, affine, data.draw(st.sampled_from(scales)))
    assert Scheme.parse(f"  {str(scheme).upper()} ") == scheme


@given(st.text(max_size=30))
def test_any_other_text_is_a_scheme_error_or_nothing(text: str) -> None:
    try:
        scheme = Scheme.parse(text)
    except SchemeError as fault:
        assert "\n" not in str(fault)
    else:
        assert Scheme.parse(str(scheme)) == scheme


@pytest.mark.parametrize(
    ("spelling", "cure"),
    [
        ("int9-g64", "choose from"),
        ("int4", "int4-g64, int4-channel or int4-tensor"),
        ("int4-g0", "must be positive"),
        ("int4-g-64", "write it like"),
        ("", "write it like"),
        ("fp16-g64", "write just 'fp16'"),
        ("fixed4-g64-affine", "affine is for int2 to int8"),
        ("int4-g64-sfp8", "int4 takes fp16, fp32, bf16, row5 scales, not fp8"),
        ("int4-g64-spow2", "int4 takes .* not pow2"),
        ("fixed4-g64-sfp16", "fixed4 takes pow2 scales, not fp16"),
        ("int4-channel-srow5", "for groups and without a zero point, such as int4-g32-srow5"),
        ("int4-tensor-srow5", "for groups and without a zero point"),
        ("int4-g32-affine-srow5", "for groups and without a zero point"),
        ("int5-g32-srow5", "int5 takes fp16, fp32, bf16 scales, not row5"),
        ("fp4e2m1-channel-se4m3", "for groups and without a zero point"),
        ("fp8-g32", "choose from"),
        ("mxfp4-g32", "choose from"),
        ("any4-tensor", "a table for each row: write any4-channel"),
    ],
)
def test_bad_spellings_name_the_cure(spelling: str, cure: str) -> None:
    with pytest.raises(SchemeError, match=cure):
        Scheme.parse(spelling)


@pytest.mark.parametrize("scheme", every_scheme(), ids=str)
def test_stored_bits_are_those_of_the_bytes(scheme: Scheme) -> None:
    weights = np.random.default_rng(3).standard_normal((5, COLUMNS)).astype(np.float32)
    tensor = ROUNDING["nearest"](weights, scheme, FITTING["minmax"])
    packed = packed_from(tensor)
    parts = (packed.codes, packed.scale, packed.zero_point, packed.multiple, packed.table)
    assert packed.scale.dtype == STORED_DTYPE[scheme.scale]
    assert tensor.stored_bits == 8 * sum(part.nbytes for part in parts if part is not None)


@pytest.mark.parametrize("columns", [1, 3, 7, 9, 31, 33])
@pytest.mark.parametrize("bits", range(2, 9))
def test_stored_bits_count_the_padding_of_odd_rows(bits: int, columns: int) -> None:
    codes = np.zeros((3, columns), np.uint8)
    assert Scheme(f"int{bits}").stored_bits(codes.shape) == 8 * pack(codes, bits).nbytes + 3 * 16


@pytest.mark.parametrize(("spelling", "bits"), [("fp32", 32), ("fp16", 16), ("bf16", 16)])
def test_full_precision_costs_its_width(spelling: str, bits: int) -> None:
    assert Scheme.parse(spelling).stored_bits((4, 10)) == 40 * bits


@pytest.mark.parametrize(
    ("spelling", "bits"),
    [("int4-g64", 4.25), ("int4-g32", 4.5), ("int4-g64-affine", 4.375), ("int4-g64-sfp32", 4.5), ("fixed8-g32", 8.25)],
)
def test_bits_per_weight_count_the_scales(spelling: str, bits: float) -> None:
    scheme = Scheme.parse(spelling)
    assert scheme.bits == bits
    assert scheme.stored_bits((8, 640)) == bits * 8 * 640


@pytest.mark.parametrize(
    ("name", "full", "bits"),
    [
        ("mxfp8", "fp8e4m3-g32-spow2", 8.25),
        ("mxfp6", "fp6e2m3-g32-spow2", 6.25),
        ("mxfp4", "fp4e2m1-g32-spow2", 4.25),
        ("nvfp4", "fp4e2m1-g16-se4m3", 4.5),
    ],
)
def test_block_formats_have_names_of_their_own(name: str, full: str, bits: float) -> None:
    assert str(Scheme.parse(full)) == name
    assert Scheme.parse(name) == Scheme.parse(full) and Scheme.parse(name).bits == bits


def test_nvfp4_counts_its_one_scale_of_the_tensor() -> None:
    assert Scheme.parse("nvfp4").stored_bits((8, 64)) == 8 * 64 * 4 + 8 * 4 * 8 + 32


def test_learned_tables_are_counted() -> None:
    assert Scheme.parse("kmeans4-g64").stored_bits((8, 128)) == 8 * 128 * 4 + 16 * 16 + 16 * 8
    assert Scheme.parse("any3-g64").stored_bits((8, 128)) == 8 * 128 * 3 + 16 * 16 + 8 * 8 * 8
    assert Scheme.parse("local2-g64").stored_bits((8, 128)) == 8 * 128 * 2 + 16 * 16 + 16 * 4 * 8
    assert Scheme.parse("pwl8-g64").stored_bits((8, 128)) == 8 * 128 * 8 + 16 * 16 + 256 * 16


def test_multiples_cost_five_bits_a_group_and_whole_bytes_a_row() -> None:
    scheme = Scheme.parse("int4-g32-srow5")
    assert scheme.bits == 4 + 5 / 32
    assert scheme.stored_bits((8, 256)) == 8 * (256 * 4 + 16 + 40)
    assert scheme.stored_bits((8, 288)) == 8 * (288 * 4 + 16 + 48)  # nine groups: 45 bits in six bytes


def test_a_group_that_does_not_divide_the_row_is_refused_with_groups_that_do() -> None:
    with pytest.raises(
        SchemeError, match=r"group 128 does not divide a row of 576 columns .*groups that do: 16, 32, 48, 64, 96, 192"
    ):
        Scheme.parse("int4-g128").group_size((10, 576))
    with pytest.raises(SchemeError, match="use channel"):
        Scheme.parse("int4-g64").group_size((10, 7))


@pytest.mark.parametrize("method", ROUNDING)
def test_rounding_refuses_a_group_that_does_not_divide(method: str) -> None:
    with pytest.raises(SchemeError, match="groups that do: 16, 32"):
        ROUNDING[method](np.ones((4, 96), np.float32), Scheme("int4", 64), FITTING["minmax"])
