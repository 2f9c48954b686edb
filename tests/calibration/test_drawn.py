"""A drawn token has the probability that the model gives it, and every token can be drawn."""

from __future__ import annotations

import numpy as np
import pytest

from bitwright.calibration.self_written import BLOCK, drawn


@pytest.mark.parametrize("size", [1, 7, BLOCK, 3 * BLOCK + 5])
def test_heights_are_cut_as_probabilities_are(size: int) -> None:
    logits = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    p = np.exp(logits.astype(np.float64))
    ends = np.cumsum(p / p.sum())
    for token in range(0, size, max(1, size // 50)):
        middle = ends[token] - p[token] / p.sum() / 2
        assert drawn(logits, middle) == token
    assert drawn(logits, 0.0) == 0 and drawn(logits, np.nextafter(1.0, 0.0)) == size - 1


def test_what_cannot_be_is_not_drawn() -> None:
    logits = np.full(2 * BLOCK, -np.inf, np.float32)
    logits[[3, BLOCK + 9]] = 0.0
    assert {drawn(logits, height) for height in np.linspace(0, 0.999, 40)} == {3, BLOCK + 9}
