"""Fits, over the table of fittings times all schemes: zeros survive, no value inside the range is off by more than half a step,
scales are already rounded, and the MSE fit is what its search says it is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bitwright import _native
from bitwright.core import QParams, Scheme
from bitwright.fitting import FITTING
from bitwright.fitting.measure import Measure
from bitwright.fitting.mse import candidates, mse_reference
from bitwright.fitting.shared_scales import multiples_of_rows, multiples_of_rows_reference
from bitwright.formats import FORMATS
from bitwright.formats.scales import SHARED, load_scale, store_scale
from bitwright.formats.uniform import Uniform
from bitwright.rounding import ROUNDING
from bitwright.rounding.nearest import encode_reference
from laws.strategies import even_schemes, every_scheme, fitted_schemes, matrices, own_scale_schemes, own_scales, seeds

Floats = npt.NDArray[np.float32]

pytestmark = pytest.mark.usefixtures("short_training")

small_matrices = hnp.arrays(np.float32, (2, 192), elements=st.floats(-1000, 1000, width=32))


def grid_of(scheme: Scheme) -> Uniform:
    grid = FORMATS[scheme.format]
    assert isinstance(grid, Uniform)
    return grid


def grouped(weights: Floats, scheme: Scheme) -> Floats:
    return weights.reshape(-1, scheme.group_size(weights.shape))


def zero_point_of(params: QParams) -> Floats:
    return np.zeros_like(params.scale) if params.zero_point is None else params.zero_point


def dequantized(groups: Floats, params: QParams, scheme: Scheme) -> npt.NDArray[np.float64]:
    """What nearest rounding makes of the groups, by the slow twin, in double precision."""
    levels = encode_reference(groups, params, grid_of(scheme)).astype(np.float64) + grid_of(scheme).lowest
    return (levels - zero_point_of(params)[:, None]) * params.scale[:, None].astype(np.float64)


def group_errors(groups: Floats, params: QParams, scheme: Scheme) -> npt.NDArray[np.float64]:
    """(groups,) sums of squared errors in double precision."""
    return np.asarray(((groups - dequantized(groups, params, scheme)) ** 2).sum(axis=1))


@pytest.mark.parametrize(("fitting", "scheme"), fitted_schemes(FITTING), ids=str)
def test_parameters_are_usable(fitting: str, scheme: Scheme) -> None:
    """Finite, never zero, rounded to their stored type already; zero points are levels."""
    for name, weights in matrices():
        groups = grouped(weights, scheme)
        params = FITTING[fitting](weights, scheme)
        assert params.scale.shape == (len(groups),) and params.scale.dtype == np.float32, name
        assert np.isfinite(params.scale).all() and params.scale.all(), name
        assert (params.row_scale is None) == (scheme.scale not in SHARED), name
        assert (params.table is None) == (scheme.tables(weights.shape) == 0), name
        stored = params.scale if params.row_scale is None else params.row_scale
        assert np.array_equal(load_scale(store_scale(stored, scheme.scale), scheme.scale), stored), name
        assert (params.zero_point is None) == (not scheme.affine), name
        if params.zero_point is not None:
            assert np.array_equal(params.zero_point, np.rint(params.zero_point)), name
            assert params.zero_point.min() >= grid_of(scheme).lowest and params.zero_point.max() <= grid_of(scheme).highest, name


@pytest.mark.parametrize(("fitting", "scheme"), fitted_schemes(FITTING), ids=str)
def test_zeros_stay_zeros(fitting: str, scheme: Scheme) -> None:
    for name, weights in matrices():
        back = ROUNDING["nearest"](weights, scheme, FITTING[fitting]).dequantize()
        assert not back[weights == 0].any(), name


@pytest.mark.parametrize("scheme", own_scale_schemes(groups=(-1, 0, 32)), ids=str)
def test_minmax_is_never_off_by_more_than_half_a_step(scheme: Scheme) -> None:
    """Min-max clips nothing, but for what rounding the scale itself down leaves outside the grid."""
    grid = grid_of(scheme)
    steps = grid.highest - grid.lowest if scheme.affine else grid.highest
    for name, weights in matrices():
        groups = grouped(weights, scheme)
        params = FITTING["minmax"](groups, scheme)
        low, high = np.minimum(groups.min(axis=1), 0), np.maximum(groups.max(axis=1), 0)
        reach = (high.astype(np.float64) - low) if scheme.affine else np.maximum(high, -low).astype(np.float64)
        outside = np.maximum(reach / params.scale - steps, 0)
        error = np.abs(groups - dequantized(groups, params, scheme)) / params.scale[:, None]
        assert np.all(error.max(axis=1) <= (0.5 + outside) * (1 + 1e-6)), name
        normal = params.scale >= 2.0**-14  # below, fp16 scales have few digits left
        assert np.all(outside[normal] <= (0 if scheme.scale == "pow2" else steps * 2.0**-8)), name


@pytest.mark.parametrize("name", [name for name in FORMATS if name.startswith("fixed")])
def test_fixed_point_scales_are_powers_of_two(name: str) -> None:
    for fitting in FITTING.values():
        for _, weights in matrices():
            mantissa, _ = np.frexp(fitting(weights, Scheme(name, scale="pow2")).scale)
            assert np.all(mantissa == 0.5)


@pytest.mark.parametrize("scheme", own_scale_schemes(groups=(-1, 0, 32)), ids=str)
def test_mse_is_never_worse_than_minmax(scheme: Scheme) -> None:
    for name, weights in matrices():
        groups = grouped(weights, scheme)
        errors = {fitting: group_errors(groups, FITTING[fitting](groups, scheme), scheme) for fitting in ("mse", "minmax")}
        assert np.all(errors["mse"] <= errors["minmax"] * (1 + 1e-5)), name


@given(weights=small_matrices, scheme=own_scales)
def test_mse_is_never_worse_than_any_grid_it_tries(weights: Floats, scheme: Scheme) -> None:
    groups = grouped(weights, scheme)
    chosen = group_errors(groups, FITTING["mse"](groups, scheme), scheme)
    tried = [group_errors(groups, grid, scheme) for grid in candidates(groups.min(axis=1), groups.max(axis=1), scheme)]
    assert np.all(chosen <= np.min(tried, axis=0) * (1 + 1e-4) + 1e-30)


@pytest.mark.parametrize("scheme", own_scale_schemes(groups=(-1, 0, 32)), ids=str)
def test_mse_equals_its_slow_twin(scheme: Scheme) -> None:
    for name, weights in matrices():
        groups = grouped(weights, scheme)
        fast, slow = FITTING["mse"](groups, scheme), mse_reference(groups, scheme)
        assert np.array_equal(fast.scale, slow.scale), name
        assert np.array_equal(zero_point_of(fast), zero_point_of(slow)), name


def test_mse_finds_the_scale_that_made_the_weights() -> None:
    """Weights that lie on a grid already come back to that very grid."""
    random = np.random.default_rng(11)
    levels = random.integers(-8, 8, (64, 32)).astype(np.float32)
    levels[:, 0] = -8  # the grid's far end is used, so the scale is determined, sign included
    scale = np.float32(2.0) ** random.integers(-6, 3, 64).astype(np.float32) * random.choice(np.array([-1, 1], np.float32), 64)
    groups = levels * scale[:, None]
    params = FITTING["mse"](groups, Scheme("int4", 32))
    assert np.array_equal(params.scale, scale)


def test_mse_gives_the_longer_half_of_the_grid_to_the_heavier_tail() -> None:
    """Symmetric grids have one more level below zero: with a lone large positive weight, the scale turns negative."""
    groups = np.array([[7.9, -1.0, 1.0, 0.1] * 8], np.float32)
    assert FITTING["mse"](groups, Scheme("int4", 32)).scale[0] < 0
    assert FITTING["mse"](-groups, Scheme("int4", 32)).scale[0] > 0


@given(weights=small_matrices, scheme=even_schemes, factor=st.floats(0.25, 2.0, width=32))
def test_native_error_and_refit_equal_their_twins(weights: Floats, scheme: Scheme, factor: float) -> None:
    """On grids that fit, clip, and leave room."""
    groups, grid = grouped(weights, scheme), grid_of(scheme)
    fitted = FITTING["minmax"](groups, scheme)
    params = QParams(fitted.scale * np.float32(factor), fitted.zero_point)
    zero_point = zero_point_of(params)
    error = _native.squared_error(groups, params.scale, zero_point, grid.lowest, grid.highest)
    expected = group_errors(groups, params, scheme)
    energy = (groups.astype(np.float64) ** 2).sum(axis=1)
    assert np.all(np.abs(error - expected) <= 1e-5 * (expected + 1e-2 * energy) + 1e-37)
    levels = encode_reference(groups, params, grid).astype(np.float64) + grid.lowest - zero_point[:, None]
    refit = _native.refit_scale(groups, params.scale, zero_point, grid.lowest, grid.highest)
    cross, norm = (groups * levels).sum(axis=1), (levels**2).sum(axis=1)
    for index in range(len(groups)):
        wanted = cross[index] / norm[index] if norm[index] > 0 and cross[index] != 0 else params.scale[index]
        bound = 1e-5 * np.abs(groups[index] * levels[index]).sum() / max(norm[index], 1)
        assert abs(refit[index] - wanted) <= bound + 1e-37


ROW_SCALED = [scheme for scheme in every_scheme(groups=(16, 32, 48)) if scheme.scale == "row5"]


@pytest.mark.parametrize("scheme", ROW_SCALED, ids=str)
@pytest.mark.parametrize("fitting", ["minmax", "mse"])
def test_scales_are_whole_multiples_of_their_rows(fitting: str, scheme: Scheme) -> None:
    """Of either sign, 1 to 15, and exactly: a level times a multiple is a signed byte under one scale."""
    for name, weights in matrices():
        params = FITTING[fitting](weights, scheme)
        assert params.row_scale is not None and params.row_scale.shape == (len(weights),) and np.all(params.row_scale > 0), name
        multiples = np.rint(params.scale.reshape(len(weights), -1) / params.row_scale[:, None])
        assert np.array_equal(multiples * params.row_scale[:, None], params.scale.reshape(len(weights), -1)), name
        assert np.all((np.abs(multiples) >= 1) & (np.abs(multiples) <= 15)), name


@pytest.mark.parametrize("scheme", ROW_SCALED, ids=str)
def test_row_scales_equal_their_slow_twin(scheme: Scheme) -> None:
    for name, weights in matrices():
        groups = grouped(weights, scheme)
        ideal = FITTING["mse"](weights, Scheme(scheme.format, scheme.group, scale="fp32")).scale
        measure = Measure(scheme, (6, 192))
        fast, slow = (share(groups, ideal, measure) for share in (multiples_of_rows, multiples_of_rows_reference))
        assert fast.row_scale is not None and slow.row_scale is not None
        assert np.array_equal(fast.row_scale, slow.row_scale), name
        assert np.array_equal(fast.scale, slow.scale), name


@given(seed=seeds)
def test_row_scales_find_the_multiples_that_made_the_weights(seed: int) -> None:
    """Weights on such a grid already come back exactly, where a row uses the largest multiple."""
    random, scheme = np.random.default_rng(seed), Scheme("int4", 32, scale="row5")
    multiples = random.integers(1, 16, (4, 6)) * random.choice([-1, 1], (4, 6))
    multiples[:, 2] = 15
    levels = random.integers(-8, 8, (4, 6, 32))
    levels[:, :, 0] = -8  # so that a group's scale is determined, sign included
    row_scale = np.float32(2.0) ** random.integers(-9, 3, (4, 1, 1)).astype(np.float32)
    weights = (levels * multiples[:, :, None] * row_scale).astype(np.float32).reshape(4, 192)
    assert np.array_equal(ROUNDING["nearest"](weights, scheme, FITTING["mse"]).dequantize(), weights)


def test_row_scales_lose_little() -> None:
    """Of normal weights, a group's scale to one part in 15 of its row's largest adds some percent to the error."""
    weights = np.random.default_rng(5).standard_normal((32, 1024)).astype(np.float32)
    errors = [
        ((ROUNDING["nearest"](weights, Scheme.parse(spelling), FITTING["mse"]).dequantize() - weights) ** 2).sum()
        for spelling in ("int4-g32", "int4-g32-srow5")
    ]
    assert errors[0] < errors[1] < 1.08 * errors[0]
