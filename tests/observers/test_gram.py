"""The observer of second moments: merging equals one pass, memory does not grow, and the sums are what they say."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from bitwright.errors import NonFiniteError
from bitwright.observers import gram as gram_module
from bitwright.observers.gram import Gram

Floats = npt.NDArray[np.float32]
COLUMNS = 12


def data(tokens: int, seed: int) -> tuple[Floats, Floats, Floats]:
    random = np.random.default_rng(seed)
    x = random.standard_normal((tokens, COLUMNS)).astype(np.float32) * np.arange(1, COLUMNS + 1, dtype=np.float32)
    original = x + random.standard_normal(x.shape).astype(np.float32) / 8
    return x, original, random.random(tokens, np.float32)


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_sums_are_the_textbooks(asymmetric: bool, weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram_module, "CHUNK", 7)  # chunks that do not divide the data
    x, original, weights = data(50, 1)
    observer = Gram(COLUMNS, asymmetric)
    observer.update(x, original if asymmetric else None, weights if weighted else None)
    gram, cross, total = np.zeros((COLUMNS, COLUMNS)), np.zeros((COLUMNS, COLUMNS)), 0.0
    for t in range(50):
        s = float(weights[t]) if weighted else 1.0
        gram += s * np.outer(x[t].astype(np.float64), x[t])
        cross += s * np.outer((original[t] - x[t]).astype(np.float64), x[t])
        total += s
    assert np.allclose(observer.gram, gram / total, rtol=1e-5, atol=1e-4)
    assert np.array_equal(observer.gram, observer.gram.T)
    if asymmetric:
        assert observer.cross is not None and np.allclose(observer.cross, cross / total, rtol=1e-5, atol=1e-4)
    else:
        assert observer.cross is None


@pytest.mark.parametrize("cuts", [[20], [1, 2, 3], [0, 49]])
def test_merging_equals_one_pass(cuts: list[int]) -> None:
    x, original, weights = data(50, 2)
    whole, merged = Gram(COLUMNS, True), Gram(COLUMNS, True)
    whole.update(x, original, weights)
    for part in np.split(np.arange(50), cuts):
        piece = Gram(COLUMNS, True)
        piece.update(x[part], original[part], weights[part])
        merged = merged + piece
    assert merged.count == pytest.approx(whole.count)
    assert np.allclose(merged.gram, whole.gram, rtol=1e-5, atol=1e-5)
    assert whole.cross is not None and merged.cross is not None
    assert np.allclose(merged.cross, whole.cross, rtol=1e-5, atol=1e-5)


def test_memory_does_not_grow() -> None:
    observer = Gram(COLUMNS, True)

    def held() -> int:
        return sum(value.nbytes for value in vars(observer).values() if isinstance(value, np.ndarray))

    before = held()
    for seed in range(5):
        x, original, _ = data(100, seed)
        observer.update(x, original)
    assert held() == before == 2 * 8 * COLUMNS**2


def test_the_input_is_left_alone() -> None:
    x, original, weights = data(10, 3)
    before = x.copy(), original.copy(), weights.copy()
    Gram(COLUMNS, True).update(x, original, weights)
    assert all(np.array_equal(a, b) for a, b in zip(before, (x, original, weights), strict=True))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_refused(bad: float) -> None:
    x, _, _ = data(10, 4)
    x[3, 2] = bad
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match="mend the model"):
        Gram(COLUMNS).update(x)


def test_nothing_seen_is_zero() -> None:
    assert not Gram(COLUMNS).gram.any()
