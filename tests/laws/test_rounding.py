"""Roundings, over their table: codes are in range, the input is left alone, NaN is refused, and native code equals its twin."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright import _native
from bitwright.core import QParams, Scheme
from bitwright.errors import NonFiniteError
from bitwright.fitting import FITTING
from bitwright.formats import FORMATS
from bitwright.formats.table import Table
from bitwright.formats.uniform import Uniform
from bitwright.rounding import ROUNDING
from bitwright.rounding.nearest import encode_reference
from laws.strategies import even_schemes, every_scheme, matrices, seeds

Floats = npt.NDArray[np.float32]
pytestmark = pytest.mark.usefixtures("short_training")
FULL_PRECISION = [name for name, format in FORMATS.items() if not format.scaled]


def methods_and_schemes() -> list[tuple[str, Scheme]]:
    """All schemes for the quick methods; every 32nd for those that take moments, with another one first for each."""
    pairs = []
    for position, (name, method) in enumerate(ROUNDING.items()):
        schemes = every_scheme(groups=(-1, 0, 32))
        if method.even_steps:
            schemes = [scheme for scheme in schemes if not isinstance(FORMATS[scheme.format], Table)]
        pairs += [(name, scheme) for scheme in (schemes[3 * position :: 32] if method.needs else schemes)]
    return pairs


@pytest.mark.parametrize(("method", "scheme"), methods_and_schemes(), ids=str)
def test_codes_are_codes(method: str, scheme: Scheme) -> None:
    for name, weights in matrices(rows=2, columns=64):
        before = weights.copy()
        tensor = ROUNDING[method](weights, scheme, FITTING["mse"])
        assert np.array_equal(weights, before), name
        assert tensor.scheme == scheme and tensor.shape == weights.shape and tensor.codes.dtype == np.uint8, name
        assert tensor.codes.max() < 1 << FORMATS[scheme.format].bits, name
        assert np.isfinite(tensor.dequantize()).all(), name


@pytest.mark.parametrize("method", ROUNDING)
@pytest.mark.parametrize("name", FULL_PRECISION)
def test_full_precision_passes_through(method: str, name: str) -> None:
    weights = np.random.default_rng(1).standard_normal((4, 33)).astype(np.float32)
    tensor = ROUNDING[method](weights, Scheme(name), FITTING["mse"])
    assert tensor.params is None
    assert tensor.stored_bits == weights.size * FORMATS[name].bits
    assert np.allclose(tensor.dequantize(), weights, rtol={"fp32": 0, "fp16": 2**-11, "bf16": 2**-8}[name], atol=2**-24)


@pytest.mark.parametrize("method", ROUNDING)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("spelling", ["int4-g32", "int8-channel-affine", "fixed8-tensor", "fp16"])
def test_what_is_no_number_is_refused(method: str, bad: float, spelling: str) -> None:
    weights = np.ones((4, 64), np.float32)
    weights[1, 5] = weights[3, 60] = bad
    with pytest.raises(NonFiniteError, match="2 NaN or infinite value.*mend the model"):
        ROUNDING[method](weights, Scheme.parse(spelling), FITTING["mse"])


@given(scheme=even_schemes, seed=seeds, spread=st.floats(-6, 4))
def test_native_nearest_equals_its_twin(scheme: Scheme, seed: int, spread: float) -> None:
    random = np.random.default_rng(seed)
    weights = (random.standard_normal((4, 192)) * 10.0**spread).astype(np.float32)
    groups = weights.reshape(-1, scheme.group_size(weights.shape))
    grid = FORMATS[scheme.format]
    assert isinstance(grid, Uniform)
    for fitting in FITTING.values():
        params = fitting(weights, scheme)
        assert np.array_equal(
            ROUNDING["nearest"](weights, scheme, fitting).codes.reshape(groups.shape), encode_reference(groups, params, grid)
        )


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("columns", [1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 65, 576])
def test_native_encode_equals_its_twin_at_every_tail(bits: int, columns: int) -> None:
    """With ties, values beyond the grid, either sign of the scale and any zero point."""
    grid, random = Uniform(bits), np.random.default_rng(columns)
    groups = (random.integers(-600, 600, (50, columns)) / 2).astype(np.float32)  # half-levels: every second one is a tie
    scale = random.choice(np.array([1, -1, 0.5, 0.3, -1.7, 1e-6, 1e6], np.float32), 50)
    zero_point = random.integers(grid.lowest, grid.highest + 1, 50).astype(np.float32)
    native = _native.encode_groups(groups, scale, zero_point, grid.lowest, grid.highest)
    assert np.array_equal(native, encode_reference(groups, QParams(scale, zero_point), grid))


@given(seed=seeds)
def test_nearest_is_nearest(seed: int) -> None:
    """No other level of the fitted grid is closer to the weight than the one chosen."""
    weights = np.random.default_rng(seed).standard_normal((2, 64)).astype(np.float32)
    scheme = Scheme("int3", 32, affine=True)
    tensor = ROUNDING["nearest"](weights, scheme, FITTING["mse"])
    assert tensor.params is not None and tensor.params.zero_point is not None
    levels = np.arange(-4, 4)[None, :] - tensor.params.zero_point[:, None].astype(np.float64)
    points = levels * tensor.params.scale[:, None]  # (groups, levels)
    groups = weights.reshape(-1, 32).astype(np.float64)
    closest = np.abs(groups[:, :, None] - points[:, None, :]).min(axis=2)
    assert np.allclose(np.abs(groups - tensor.dequantize().reshape(groups.shape)), closest, rtol=1e-5, atol=1e-7)
