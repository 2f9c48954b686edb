"""The rotation equals its slow twin, undoes itself, keeps lengths and products, and spreads what stood alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.core import QTensor, Scheme
from bitwright.formats import FORMATS
from bitwright.formats.hadamard import is_rotation, rotate, rotate_reference, rotation_block
from laws.strategies import seeds

BLOCKS = (2, 4, 8, 16, 32, 64)


@pytest.mark.parametrize("block", BLOCKS)
@given(seed=seeds, blocks=st.integers(1, 5), spread=st.floats(-6, 6))
def test_it_equals_the_matrix(block: int, seed: int, blocks: int, spread: float) -> None:
    weights = (np.random.default_rng(seed).standard_normal((3, blocks * block)) * 10.0**spread).astype(np.float32)
    turned, exact = rotate(weights, block), rotate_reference(weights, block)
    assert turned.dtype == np.float32 and turned.shape == weights.shape
    bound = 1e-6 * np.abs(weights).reshape(3, -1, block).sum(axis=2)
    assert np.all(np.abs(turned - exact).reshape(3, -1, block) <= bound[:, :, None])


@pytest.mark.parametrize("block", BLOCKS)
def test_columns_are_in_sylvester_order(block: int) -> None:
    """Entry (i, j) is +-1 / sqrt(n), negative where i and j have an odd number of bits in common."""
    matrix = rotate(np.eye(block, dtype=np.float32), block)
    parity = np.array([[(i & j).bit_count() % 2 for j in range(block)] for i in range(block)])
    assert np.array_equal(matrix, np.where(parity, -1, 1).astype(np.float32) * np.float32(block**-0.5))


@pytest.mark.parametrize("block", BLOCKS)
def test_twice_is_nothing_and_products_stay(block: int) -> None:
    random = np.random.default_rng(block)
    weights, inputs = (random.standard_normal((4, 192)).astype(np.float32) for _ in range(2))
    assert np.abs(rotate(rotate(weights, block), block) - weights).max() < 2e-6
    exact = weights.astype(np.float64) @ inputs.T
    assert np.abs(rotate(weights, block).astype(np.float64) @ rotate(inputs, block).T - exact).max() < 2e-5


def test_an_outlier_spreads_over_its_block_alone() -> None:
    weights = np.zeros((1, 128), np.float32)
    weights[0, 70] = 8
    turned = rotate(weights, 64)
    assert not turned[0, :64].any() and np.array_equal(np.abs(turned[0, 64:]), np.ones(64, np.float32))


def test_the_input_is_left_alone() -> None:
    weights = np.ones((2, 64), np.float32)
    rotate(weights, 64)
    assert np.array_equal(weights, np.ones((2, 64)))
    assert rotate(weights, 0) is weights


@pytest.mark.parametrize(("columns", "block"), [(576, 64), (1536, 64), (48, 16), (100, 4), (6, 2), (7, 0), (1, 0)])
def test_the_block_is_the_largest_that_divides(columns: int, block: int) -> None:
    assert rotation_block(columns) == block
    assert is_rotation(block, columns) == (block > 0)


@pytest.mark.parametrize(("block", "columns"), [(0, 64), (1, 64), (3, 48), (128, 128), (64, 96), (-2, 64)])
def test_what_is_no_rotation(block: int, columns: int) -> None:
    assert not is_rotation(block, columns)


def test_a_rotated_tensor_dequantizes_to_the_columns_it_came_with() -> None:
    weights = np.random.default_rng(2).standard_normal((4, 192)).astype(np.float32)
    full = QTensor(FORMATS["fp32"].encode(rotate(weights, 64)), None, Scheme("fp32"))
    assert np.abs(rotate(full.dequantize(), 64) - weights).max() < 2e-6
