"""The bootstrap against brute force and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from bitwright.analysis.significance import Resampling, percentile_interval, quantile, resample, units_of_windows

RANDOM = np.random.default_rng(7)


def slow_replicate(values: np.ndarray, draws: Resampling, replicate: int) -> np.ndarray:
    """The tokens of one replicate, written out: every drawn unit's tokens, as often as it was drawn."""
    counts = draws.counts[replicate]
    return np.concatenate([np.repeat(values[draws.unit_of_token == unit], count) for unit, count in enumerate(counts)])


@pytest.fixture
def ragged() -> tuple[np.ndarray, Resampling]:
    units = units_of_windows([31] * 24 + [5])
    return RANDOM.exponential(size=len(units)), resample(units, replicates=40, seed=3)


def test_means_equal_brute_force(ragged: tuple[np.ndarray, Resampling]) -> None:
    values, draws = ragged
    slow = [slow_replicate(values, draws, replicate).mean() for replicate in range(40)]
    np.testing.assert_allclose(draws.means(values), slow, rtol=1e-12)


@pytest.mark.parametrize("chunk", [1, 1 << 22])
def test_quantiles_equal_brute_force(ragged: tuple[np.ndarray, Resampling], chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitwright.analysis.significance._CHUNK_CELLS", chunk)
    values, draws = ragged
    for level, row in zip((0.5, 0.99), draws.quantiles(values, (0.5, 0.99)), strict=True):
        slow = [np.quantile(slow_replicate(values, draws, replicate), level, method="inverted_cdf") for replicate in range(40)]
        np.testing.assert_array_equal(row, slow)


def test_ties_do_not_matter() -> None:
    units = units_of_windows([10] * 20)
    values = np.repeat([0.0, 1.0], 100)
    assert set(np.unique(resample(units).quantiles(values, (0.3,)))) <= {0.0, 1.0}


def test_spread_is_that_of_the_closed_form() -> None:
    """With units of equal size a replicate is a mean of unit means: its variance is their variance over their number."""
    units = units_of_windows([16] * 200)
    values = RANDOM.normal(size=len(units)) + np.repeat(RANDOM.normal(size=200), 16)
    unit_means = values.reshape(200, 16).mean(axis=1)
    spread = resample(units, replicates=4000).means(values).std()
    assert spread == pytest.approx(unit_means.std() / np.sqrt(200), rel=0.05)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Tokens share their window's mean, so that an interval over single tokens would miss most of the time."""
    covered = by_token = 0
    for trial in range(120):
        values = (RANDOM.normal(size=(40, 25)) * 0.2 + RANDOM.normal(size=(40, 1))).ravel()
        low, high = percentile_interval(resample(units_of_windows([25] * 40), 300, trial).means(values))
        covered += low <= 0 <= high
        low, high = percentile_interval(resample(np.arange(1000), 300, trial).means(values))
        by_token += low <= 0 <= high
    assert 0.88 <= covered / 120 <= 0.99
    assert by_token / 120 < 0.6


def test_pairing_cancels_what_is_hard_for_both() -> None:
    units = units_of_windows([50] * 30)
    hard = np.repeat(RANDOM.normal(size=30), 50)
    first, second = hard + 0.1, hard
    draws = resample(units)
    assert percentile_interval(draws.means(first - second)) == pytest.approx((0.1, 0.1))
    np.testing.assert_allclose(draws.means(first) - draws.means(second), 0.1)


def test_same_seed_same_interval() -> None:
    units = units_of_windows([20] * 25)
    values = RANDOM.normal(size=500)
    assert percentile_interval(resample(units).means(values)) == percentile_interval(resample(units).means(values))


def test_point_estimate_and_replicates_share_one_definition() -> None:
    """When every unit is drawn once, the replicate is the sample itself."""
    values = RANDOM.exponential(size=500)
    once = Resampling(units_of_windows([20] * 25), np.ones((1, 25), np.int64))
    for level in (0.01, 0.5, 0.99):
        assert once.quantiles(values, (level,))[0, 0] == quantile(values, level)
    assert once.means(values)[0] == pytest.approx(values.mean())


@pytest.mark.parametrize(
    ("sizes", "units"),
    [([511] * 64, 64), ([511] * 20, 20), ([511] * 5 + [100], 21), ([100], 25), ([7], 7), ([1], 1), ([3, 1], 4)],
)
def test_windows_are_halved_only_where_there_are_too_few(sizes: list[int], units: int) -> None:
    unit_of_token = units_of_windows(sizes)
    assert len(unit_of_token) == sum(sizes)
    assert unit_of_token.max() + 1 == units
    assert (np.diff(unit_of_token) >= 0).all()
    edges = np.cumsum(sizes)[:-1]
    assert all(unit_of_token[edge] != unit_of_token[edge - 1] for edge in edges)  # no unit spans two windows
