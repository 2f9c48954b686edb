"""Law 3: merging equals one pass, and memory does not grow with the data. Over every observer of ranges and moments."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.core import Observer
from bitwright.errors import NonFiniteError
from bitwright.observers.histogram import BINS, Histogram, counts_reference
from bitwright.observers.minmax import MinMax
from bitwright.observers.moments import ColumnMoments
from bitwright.observers.moving_average import MovingAverage
from laws.strategies import seeds

Floats = npt.NDArray[np.float32]
COLUMNS = 5

OBSERVERS: dict[str, Callable[[], Any]] = {
    "minmax": MinMax,
    "minmax of columns": lambda: MinMax(COLUMNS),
    "moving average": MovingAverage,
    "moments": lambda: ColumnMoments(COLUMNS),
    "histogram": Histogram,
}


def findings(observer: Any) -> list[npt.NDArray[Any]]:
    """All that an observer knows."""
    if isinstance(observer, MinMax):
        return [observer.low, observer.high]
    if isinstance(observer, MovingAverage):
        return [np.array(observer.range), np.array(observer.batches)]
    if isinstance(observer, ColumnMoments):
        return [observer.mean, observer.variance, np.array(observer.count)]
    return [observer.counts, np.array(observer.exponent)]


def batches(seed: int, count: int) -> list[Floats]:
    """Of different sizes, an empty one too, and of sizes of values from 1e-6 to 1e6."""
    random = np.random.default_rng(seed)
    return [
        (random.standard_normal((random.integers(0, 9), COLUMNS)) * 10.0 ** random.uniform(-6, 6)).astype(np.float32)
        for _ in range(count)
    ]


def seen(name: str, data: list[Floats]) -> Any:
    observer = OBSERVERS[name]()
    for batch in data:
        observer.update(batch)
    return observer


@pytest.mark.parametrize("name", OBSERVERS)
@given(seed=seeds, first=st.integers(0, 5), second=st.integers(0, 5))
def test_merging_equals_one_pass(name: str, seed: int, first: int, second: int) -> None:
    data = batches(seed, first + second)
    left, right = seen(name, data[:first]), seen(name, data[first:])
    before = [part.copy() for part in findings(left) + findings(right)]
    merged, whole = left + right, seen(name, data)
    exact = name not in ("moments", "moving average")
    for found, expected in zip(findings(merged), findings(whole), strict=True):
        assert np.array_equal(found, expected) if exact else np.allclose(found, expected, rtol=1e-9, atol=0)
    assert all(np.array_equal(old, new) for old, new in zip(before, findings(left) + findings(right), strict=True))


@pytest.mark.parametrize("name", OBSERVERS)
def test_memory_does_not_grow_with_the_data(name: str) -> None:
    few, many = seen(name, batches(0, 3)), seen(name, batches(0, 300))
    assert len(pickle.dumps(many)) <= len(pickle.dumps(few)) + 16


@pytest.mark.parametrize("name", OBSERVERS)
def test_it_is_an_observer_and_refuses_what_is_no_number(name: str) -> None:
    observer = OBSERVERS[name]()
    assert isinstance(observer, Observer)
    with pytest.raises(NonFiniteError):
        observer.update(np.full((2, COLUMNS), np.nan, np.float32))


@given(seed=seeds)
def test_they_know_what_numpy_knows(seed: int) -> None:
    data = [batch for batch in batches(seed, 6) if len(batch)]
    if not data:
        return
    everything = np.concatenate(data)
    ranges, columns, moments = seen("minmax", data), seen("minmax of columns", data), seen("moments", data)
    assert (ranges.low, ranges.high) == (everything.min(), everything.max())
    assert np.array_equal(columns.low, everything.min(axis=0)) and np.array_equal(columns.high, everything.max(axis=0))
    doubles = everything.astype(np.float64)
    assert np.allclose(moments.mean, doubles.mean(axis=0), rtol=1e-9, atol=1e-12 * np.abs(doubles).max())
    assert np.allclose(moments.variance, doubles.var(axis=0), rtol=1e-6)


@given(seed=seeds)
def test_a_histogram_is_that_of_all_values(seed: int) -> None:
    """Counted over its final range at once, it is the same; every value lies in its range; shares are bounded by edges."""
    data = [batch for batch in batches(seed, 4) if len(batch)]
    if not data:
        return
    values, histogram = np.concatenate(data).reshape(-1).astype(np.float64), seen("histogram", data)
    limit = 2.0**histogram.exponent
    assert np.array_equal(histogram.counts, np.histogram(values, BINS, (-limit, limit))[0])
    assert limit / 2 <= np.abs(values).max() < limit or not values.any()
    assert histogram.magnitudes().sum() == len(values)
    for share in (0.5, 0.99, 1.0):
        bound = histogram.bound(share)
        assert np.mean(np.abs(values) < bound) >= share or np.mean(np.abs(values) <= bound) >= share
        assert np.mean(np.abs(values) < bound - histogram.width) < share


@pytest.mark.parametrize("count", [1, 3, 255, 256, 257, 70001])
def test_a_histogram_counts_as_its_slow_twin(count: int) -> None:
    """At lengths around the native loop's, on one core and several, with zeros of both signs and values at the edges of bins."""
    random, histogram = np.random.default_rng(count), Histogram()
    x = random.standard_normal(count).astype(np.float32)
    x[::5] = (np.rint(x[::5] * 100) / 128).astype(np.float32)
    x[1::7], x[2::7], x[3::11] = 0.0, -0.0, -1e-30
    histogram.update(x)
    assert np.array_equal(histogram.counts, counts_reference(x, histogram.exponent))
    before = histogram.counts.copy()
    with pytest.raises(NonFiniteError):
        histogram.update(np.append(x, np.float32(np.inf)))
    assert np.array_equal(histogram.counts, before)


def test_an_average_forgets_and_is_not_pulled_to_zero() -> None:
    observer = MovingAverage(0.5)
    assert observer.range == (0, 0)
    observer.update(np.array([-2, 4], np.float32))
    assert observer.range == (-2, 4)
    observer.update(np.array([-1, 8], np.float32))
    assert observer.range == pytest.approx(((-2 * 0.25 - 0.5) / 0.75, (4 * 0.25 + 4) / 0.75))
    with pytest.raises(ValueError, match="momentum"):
        MovingAverage(1.0)
