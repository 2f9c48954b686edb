"""Ranges that read a histogram: the cut of least entropy is one of every bin edge, and never beyond what was seen."""

from __future__ import annotations

import numpy as np
import pytest

from bitwright.activations.ranges import entropy
from bitwright.fitting.entropy import divergence_reference
from bitwright.observers.histogram import Histogram


def unused(values: np.ndarray, largest: float) -> np.ndarray:
    raise AssertionError("entropy rounds nothing")


@pytest.mark.parametrize("distribution", ["laplace", "standard_normal"])
def test_entropy_takes_the_best_of_all_edges(distribution: str) -> None:
    x = getattr(np.random.default_rng(2), distribution)(size=50_000).astype(np.float32)
    histogram, levels = Histogram(), 128
    histogram.update(x)
    counts, end = histogram.magnitudes().tolist(), round(entropy(histogram, unused, levels) / histogram.width)
    divergence = divergence_reference(counts, end, levels)
    for other in (levels, end - 16, end - 1, end // levels * levels, int(histogram.bound(1.0) / histogram.width)):
        assert divergence <= divergence_reference(counts, other, levels)


def test_entropy_ends_at_the_largest_value() -> None:
    histogram = Histogram()
    histogram.update(np.full(1000, 0.6, np.float32))
    assert 0.6 <= entropy(histogram, unused, 8) <= 0.6 + histogram.width
