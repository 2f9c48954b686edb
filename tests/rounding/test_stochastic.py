"""Stochastic rounding: one of the two levels around a weight, and right on average."""

from __future__ import annotations

import numpy as np
import pytest

from bitwright.core import QParams, Scheme
from bitwright.fitting import FITTING
from bitwright.formats.table import Ordering, decode_with
from bitwright.rounding.stochastic import between_levels, stochastic


def unit(weights: np.ndarray, scheme: Scheme) -> QParams:
    """Scale .25 and, where affine, zero point 1."""
    scale = np.full(scheme.groups(weights.shape), 0.25, np.float32)
    return QParams(scale, np.ones_like(scale) if scheme.affine else None)


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
    levels = np.array([0, 1, np.nan, 4, -2], np.float32)
    order = Ordering.of(levels[None, :])
    x = np.array([[0.5, 2.5, -1, -2, 4, 9, -9, 0]], np.float32)
    low = between_levels(x, np.full(x.shape, 0.999, np.float32), order)
    high = between_levels(x, np.zeros(x.shape, np.float32), order)
    assert levels[low].tolist() == [[0, 1, -2, -2, 4, 4, -2, 0]]
    assert levels[high].tolist() == [[1, 4, 0, -2, 4, 4, -2, 0]]


@pytest.mark.parametrize("spelling", ["any3-g32", "local2-g32", "kmeans3-g32", "pwl8-g32"])
def test_learned_levels_are_those_around_the_weight(spelling: str) -> None:
    """No level of the weight's own table lies between it and the one it took; every second level or so is the upper one."""
    weights = np.random.default_rng(3).standard_normal((6, 96)).astype(np.float32)
    tensor = stochastic(weights, Scheme.parse(spelling), FITTING["mse"])
    assert tensor.params is not None and tensor.params.table is not None
    tables, groups = tensor.params.table, tensor.params.scale.size
    x = (weights.reshape(groups, -1) / tensor.params.scale[:, None]).reshape(len(tables), -1)
    taken = decode_with(tables, tensor.codes).reshape(x.shape)
    for table, values, levels in zip(tables, x, taken, strict=True):
        inside = np.clip(values, table[0], table[-1])
        low, high = np.minimum(inside, levels), np.maximum(inside, levels)
        assert not ((table > low[:, None]) & (table < high[:, None])).any()
    within = (x > tables[:, :1]) & (x < tables[:, -1:])
    assert 0.3 < (taken > x)[within].mean() < 0.7
