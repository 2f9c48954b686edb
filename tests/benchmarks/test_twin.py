"""The twin's mathematics, and the scores by which engines are compared: what the benchmarks' figures rest on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from make_twin import balanced_gain, givens_rotation
from smollm2 import deinterleave, interleave
from worker import compare, reference


def test_the_rotation_is_orthogonal_and_mixes() -> None:
    rotation = givens_rotation(64, seed=1)
    assert np.allclose(rotation @ rotation.T, np.eye(64), atol=1e-12)
    assert np.count_nonzero(rotation) >= 64 * 6
    assert not np.allclose(rotation, givens_rotation(64, seed=2))


def test_a_norm_without_gain_commutes_with_the_rotation() -> None:
    x, rotation = np.random.default_rng(3).standard_normal((5, 64)), givens_rotation(64, seed=1)
    root_mean_square = np.sqrt((x**2).mean(axis=1, keepdims=True))
    rotated = x @ rotation
    assert np.allclose(rotated / np.sqrt((rotated**2).mean(axis=1, keepdims=True)), (x / root_mean_square) @ rotation)


def test_gains_balance_the_columns() -> None:
    matrices = [np.random.default_rng(seed).standard_normal((8, 16)) * np.geomspace(0.1, 10, 16) for seed in (1, 2)]
    gain = balanced_gain(matrices)
    assert np.isclose(np.log(gain).mean(), 0)
    size = np.sqrt(np.mean(np.concatenate([matrix / gain for matrix in matrices]) ** 2, axis=0))
    assert np.allclose(size, size[0])


def test_row_orders_are_each_other_s_inverse() -> None:
    rows = np.arange(3 * 8 * 2, dtype=np.float32).reshape(24, 2)
    assert np.array_equal(deinterleave(interleave(rows, 3), 3), rows)
    one_head = np.arange(8, dtype=np.float32)[:, None]
    assert interleave(one_head, 1)[:, 0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


class Fixed:
    """A session whose logits are given."""

    def __init__(self, logits: np.ndarray) -> None:
        self._logits = logits

    def prefill(self, tokens: list[int]) -> np.ndarray:
        return self._logits[-1]

    def decode(self, token: int) -> np.ndarray:
        return self._logits[-1]

    def logits(self, tokens: list[int]) -> np.ndarray:
        return self._logits


def test_scores_are_those_of_the_definitions(tmp_path: Path) -> None:
    p, q = np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]), np.array([[0.25, 0.5, 0.25], [0.2, 0.7, 0.1]])
    reference(Fixed(np.log(p).astype(np.float32) + 3), [0, 2], str(tmp_path / "reference.npy"))
    scores = compare(Fixed(np.log(q).astype(np.float32) - 5), [0, 2], str(tmp_path / "reference.npy"))
    assert np.allclose(scores["kl"], [0.5 * np.log(2) - 0.25 * np.log(2)], atol=1e-6)
    assert np.allclose(scores["nll"], [-np.log(0.25)], atol=1e-6)
    assert np.allclose(scores["nll_reference"], [-np.log(0.25)], atol=1e-6)
    assert scores["agree"] == [0]
