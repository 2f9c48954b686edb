"""Stochastic rounding: one of the two levels around a weight, and right on average."""

from __future__ import annotations

import numpy as np

from bitwright.core import QParams, Scheme
from bitwright.rounding.stochastic import between_levels, stochastic


def unit(groups: np.ndarray, scheme: Scheme) -> QParams:
    """Scale .25 and, where affine, zero point 1."""
    scale = np.full(len(groups), 0.25, np.float32)
    return QParams(scale, np.ones(len(groups), np.float32) if scheme.affine else None)


def test_the_level_is_one_of_the_two_around_the_weight() -> None:
    weights = np.random.default_rng(1).uniform(-1, 1, (64, 64)).astype(np.float32)
    for affine in (False, True):
        tensor = stochastic(weights, Scheme("int8", 64, affine), unit)
        assert (np.abs(tensor.dequantize() - weights) < 0.25).all()
        assert np.array_equal(tensor.codes, stochastic(weights, Scheme("int8", 64, affine), unit).codes)


def test_the_mean_is_the_weight() -> None:
    """64 x 4096 draws for each of 4 values: the mean's deviation is .25 / 2 / 512 at most, five of those are allowed."""
    for value in (0.3, -0.07, 0.25, 0.0):
        weights = np.full((64, 4096), value, np.float32)
        error = stochastic(weights, Scheme("int8", 64), unit).dequantize().mean(dtype=np.float64) - value
        assert abs(error) < 5 * 0.125 / 512


def test_levels_may_be_uneven_and_in_any_order() -> None:
    levels = np.array([0, 1, 4, -2], np.float32)
    x = np.array([[0.5, 2.5, -1, -2, 4, 9, -9, 0]], np.float32)
    low = between_levels(x, np.full(x.shape, 0.999, np.float32), levels)
    high = between_levels(x, np.zeros(x.shape, np.float32), levels)
    assert levels[low].tolist() == [[0, 1, -2, -2, 4, 4, -2, 0]]
    assert levels[high].tolist() == [[1, 4, 0, -2, 4, 4, -2, 0]]
