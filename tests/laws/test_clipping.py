"""Fittings that clip, and those that weigh columns: they equal their slow twins and do what they are for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core import QParams, Scheme
from bitwright.fitting import CALIBRATED, FITTING
from bitwright.fitting.entropy import BINS_A_LEVEL, best_cut, best_cut_reference, divergence_reference, divergences, histograms
from bitwright.fitting.measure import Measure
from bitwright.fitting.mse import mse_reference
from bitwright.formats import FORMATS
from bitwright.formats.table import decode_with
from bitwright.formats.uniform import Uniform
from laws.strategies import matrices, seeds

Floats = npt.NDArray[np.float32]


@st.composite
def counted(draw: st.DrawFn) -> tuple[npt.NDArray[np.float64], int]:
    """(3, bins) counts that fall off, with bins left empty, and levels that seldom divide the bins."""
    levels = draw(st.sampled_from([2, 4, 8, 128]))
    bins = levels + draw(st.integers(0, 60))
    random = np.random.default_rng(draw(seeds))
    fall, size = draw(st.sampled_from([0.0, 3.0, 12.0])), draw(st.sampled_from([0.3, 5.0, 1e3, 1e7]))
    counts = random.poisson(size * np.exp(-fall * np.arange(bins) / bins), (3, bins)).astype(np.float64)
    counts[1, random.random(bins) < 0.5] = 0
    counts[2, bins // 2 :], counts[2, -1] = 0, 1  # a lone outlier
    return counts, levels


@settings(max_examples=30, deadline=None)
@given(counted())
def test_entropy_equals_its_slow_twin(histogram: tuple[npt.NDArray[np.float64], int]) -> None:
    """In its choice exactly, and in what it chooses by up to rounding."""
    counts, levels = histogram
    assert best_cut(counts, levels).tolist() == [best_cut_reference(row.tolist(), levels) for row in counts]
    slow = [[divergence_reference(row.tolist(), end, levels) for end in range(len(row), levels - 1, -1)] for row in counts]
    np.testing.assert_allclose(divergences(counts, levels), slow, rtol=1e-9, atol=1e-11)


def test_entropy_tries_cuts_between_whole_bins_a_level() -> None:
    levels, x = 4, np.abs(np.random.default_rng(5).laplace(size=(1, 5000))).astype(np.float32)
    (counts,) = histograms(x, x.max(axis=1), levels * BINS_A_LEVEL)
    assert counts.sum() == 5000
    found = {end: divergence_reference(counts.tolist(), end, levels) for end in range(levels, len(counts) + 1)}
    (cut,) = best_cut(counts[None], levels)
    assert found[cut] == min(found.values()) < min(found[end] for end in found if end % levels == 0)


def test_entropy_takes_the_widest_of_equals() -> None:
    """Even counts lose nothing, wherever the cut is; it is never beyond the largest value, nor less than a bin a level."""
    counts = np.array([[3.0] * 20, [3.0] * 9 + [0.0] * 11, [3.0] + [0.0] * 19, [0.0] * 20])
    assert best_cut(counts, 4).tolist() == [20, 9, 4, 4]


def test_entropy_cuts_lone_outliers_off_and_keeps_even_values() -> None:
    random, scheme = np.random.default_rng(1), Scheme("int8", -1)
    bell = random.standard_normal((1, 20_000)).astype(np.float32)
    bell[0, 0] = 60
    assert FITTING["entropy"](bell, scheme).scale[0] < 0.3 * FITTING["minmax"](bell, scheme).scale[0]
    even = random.uniform(-1, 1, (1, 20_000)).astype(np.float32)
    assert FITTING["entropy"](even, scheme).scale[0] > 0.9 * FITTING["minmax"](even, scheme).scale[0]


@pytest.mark.parametrize("spelling", ["int8-channel-sfp32", "int4-g96-sfp32", "int8-tensor-sfp32"])
def test_percentile_is_the_percentile(spelling: str) -> None:
    scheme = Scheme.parse(spelling)
    for name, weights in matrices():
        params = FITTING["percentile"](weights, scheme)
        for group, scale in zip(weights.reshape(-1, scheme.group_size(weights.shape)), params.scale, strict=True):
            ordered = np.sort(np.abs(group)).astype(np.float64)
            place = 0.999 * (len(ordered) - 1)
            low = int(place)
            cut = ordered[low] + (ordered[min(low + 1, len(ordered) - 1)] - ordered[low]) * (place - low)
            assert scale == pytest.approx(max(cut / (2 ** (FORMATS[scheme.format].bits - 1) - 1), 2.0**-126), rel=1e-5), name


def test_percentile_clips_a_thousandth() -> None:
    weights = np.random.default_rng(2).standard_normal((1, 100_000)).astype(np.float32)
    scheme = Scheme("int8", 0, scale="fp32")
    beyond = np.abs(weights[0]) > 127.5 * FITTING["percentile"](weights, scheme).scale[0]
    assert 0 < beyond.sum() <= 100


def weighted_error(weights: Floats, importance: Floats, params: QParams, scheme: Scheme) -> float:
    """The sum over columns of importance times squared error, in plain numpy."""
    groups = weights.reshape(-1, scheme.group_size(weights.shape))
    codes = Measure(scheme, (weights.shape[0], weights.shape[1])).encode(groups, params)
    format = FORMATS[scheme.format]
    levels = format.decode(codes) if params.table is None else decode_with(params.table, codes)
    offset = 0 if params.zero_point is None else params.zero_point[:, None]
    back = ((levels - offset) * params.scale[:, None]).reshape(weights.shape).astype(np.float64)
    return float((importance * (back - weights) ** 2).sum())


WEIGHTED = [
    "int4-g32",
    "int3-g48-affine",
    "int4-tensor",
    "nf4-g32",
    "fp4e2m1-channel",
    "fixed4-channel",
    "any3-g32",
    "int4-g32-srow5",
]


@pytest.mark.parametrize("spelling", WEIGHTED)
def test_weighing_columns_lowers_what_they_weigh(spelling: str) -> None:
    scheme, random = Scheme.parse(spelling), np.random.default_rng(3)
    weights = random.standard_t(5, (32, 192)).astype(np.float32)
    importance = (random.exponential(1, 192) ** 3).astype(np.float32)
    fitted = [fit(weights, scheme) for fit in (CALIBRATED["hessian"](importance), FITTING["mse"])]
    errors = [weighted_error(weights, importance, params, scheme) for params in fitted]
    assert errors[0] < errors[1] if scheme.scale != "pow2" else errors[0] <= errors[1]


@pytest.mark.parametrize(
    "spelling", ["int4-g32", "int3-g48-affine", "int5-tensor", "int4-g32-srow5", "fixed4-channel", "nf3-g32"]
)
def test_equal_importances_are_none(spelling: str) -> None:
    """Up to rounding in the sums, which may tip a scale to its neighbour: the errors are the same."""
    scheme = Scheme.parse(spelling)
    weights, ones = dict(matrices())["normal"], np.ones(192, np.float32)
    nearly = np.where(np.arange(192) == 5, np.float32(1 + 1e-6), ones)  # equal ones are not looked at
    plain, weighted = FITTING["mse"](weights, scheme), CALIBRATED["hessian"](nearly)(weights, scheme)
    assert weighted_error(weights, ones, weighted, scheme) == pytest.approx(
        weighted_error(weights, ones, plain, scheme), rel=1e-4
    )
    for equal in (np.zeros(192, np.float32), ones, np.ones(1, np.float32)):
        assert np.array_equal(CALIBRATED["hessian"](equal)(weights, scheme).scale, plain.scale)


@given(seed=seeds, affine=st.booleans())
def test_the_weighted_measure_equals_plain_numpy(seed: int, affine: bool) -> None:
    random, scheme = np.random.default_rng(seed), Scheme("int4", 48, affine, "fp32")
    weights, importance = random.standard_normal((4, 96)).astype(np.float32), random.uniform(0, 2, 96).astype(np.float32)
    params = mse_reference(weights, scheme)
    groups, measure = weights.reshape(-1, 48), Measure(scheme, (4, 96), importance)
    error = measure.error(groups, params.scale, params.zero_point)
    assert error.sum(dtype=np.float64) == pytest.approx(weighted_error(weights, importance, params, scheme), rel=1e-4)
    grid = FORMATS["int4"]
    assert isinstance(grid, Uniform)
    refit = QParams(measure.refit(groups, params.scale, params.zero_point), params.zero_point)
    levels = measure.levels(groups, params.scale, params.zero_point).astype(np.float64)
    weighed = np.tile(importance.reshape(2, 48), (4, 1))
    before, after = (((levels * p.scale[:, None] - groups) ** 2 * weighed).sum(axis=1) for p in (params, refit))
    assert np.all(after <= before * (1 + 1e-5) + 1e-12)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_importances_that_are_none_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite and not negative"):
        CALIBRATED["hessian"](np.array([1, bad], np.float32))
