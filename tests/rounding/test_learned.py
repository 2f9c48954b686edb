"""AdaRound and SignRound against the best there is, found by trying everything, and against slopes by finite differences."""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt
import pytest

from bitwright.core import Scheme
from bitwright.errors import SchemeError
from bitwright.fitting import FITTING
from bitwright.rounding import ROUNDING
from bitwright.rounding.adaround import WARM_UP, WEIGHT, regularizer_slope
from bitwright.rounding.moments import Moments
from bitwright.rounding.nearest import nearest

Floats = npt.NDArray[np.float32]
COLUMNS, ROWS = 10, 24
SCHEME = Scheme("int4", 0, scale="fp32")


def problem(seed: int) -> tuple[Floats, Moments]:
    random = np.random.default_rng(seed)
    x = random.standard_normal((40, COLUMNS)) @ random.standard_normal((COLUMNS, COLUMNS)) + 2 * random.standard_normal((40, 1))
    return random.standard_normal((ROWS, COLUMNS)).astype(np.float32), Moments(x.T @ x / len(x), damping=0.01)


def errors(change: npt.NDArray[np.float64], known: Moments) -> npt.NDArray[np.float64]:
    return np.einsum("...i,ij,...j->...", change, known.damped, change)


def best_up_or_down(weights: Floats, known: Moments) -> npt.NDArray[np.float64]:
    """(rows,) the least error of all 2^columns ways to round each weight up or down on nearest rounding's grid."""
    params = nearest(weights, SCHEME, FITTING["mse"]).params
    assert params is not None
    ways = np.array(list(product((0, 1), repeat=COLUMNS)))
    least = []
    for row, scale in zip(weights.astype(np.float64), params.scale.astype(np.float64), strict=True):
        levels = np.clip(np.floor(row / scale) + ways, -8, 7)
        least.append(errors(levels * scale - row, known).min())
    return np.array(least)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_learning_comes_close_to_the_best(seed: int) -> None:
    weights, known = problem(seed)
    best = best_up_or_down(weights, known).sum()
    found = {
        name: errors((ROUNDING[name](weights, SCHEME, FITTING["mse"], known).dequantize() - weights).astype(np.float64), known)
        for name in ("nearest", "adaround", "signround")
    }
    for name in ("adaround", "signround"):
        assert (found[name] <= found["nearest"] * (1 + 1e-5)).all()
        closed = (found["nearest"].sum() - found[name].sum()) / (found["nearest"].sum() - best)
        assert closed > 0.6, f"{name} closes {closed:.2f} of the gap between nearest rounding and the best"
    assert found["adaround"].sum() >= best * (1 - 1e-5)  # it rounds up or down, and cannot do better


@pytest.mark.parametrize("method", ["adaround", "signround"])
def test_tables_are_refused(method: str) -> None:
    weights, known = problem(1)
    with pytest.raises(SchemeError, match="nf4 is a table of levels; choose gptq"):
        ROUNDING[method](weights, Scheme("nf4", 0), FITTING["mse"], known)
    plain = ROUNDING[method](weights, Scheme("fp16", 0), FITTING["mse"], known)  # without a scale there is nothing to learn
    assert np.array_equal(plain.dequantize(), weights.astype(np.float16))


def test_adarounds_codes_are_the_two_around_the_weight() -> None:
    weights, known = problem(4)
    tensor = ROUNDING["adaround"](weights, SCHEME, FITTING["minmax"], known)
    assert tensor.params is not None
    assert (np.abs(tensor.dequantize() - weights) <= np.abs(tensor.params.scale[:, None]) * (1 + 1e-5)).all()


@pytest.mark.parametrize("progress", [0.0, 0.1, WARM_UP, 0.5, 0.99])
def test_the_pull_to_whole_gates_is_the_derivative(progress: float) -> None:
    gate = np.linspace(0.05, 0.95, 10).astype(np.float64)
    if progress < WARM_UP:
        assert regularizer_slope(gate, progress) == 0  # type: ignore[arg-type]
        return
    beta = 2 + 18 * 0.5 * (1 + np.cos(np.pi * (progress - WARM_UP) / (1 - WARM_UP)))

    def cost(h: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return WEIGHT * (1 - np.abs(2 * h - 1) ** beta)

    slope = (cost(gate + 1e-6) - cost(gate - 1e-6)) / 2e-6
    assert np.allclose(regularizer_slope(gate, progress), slope, rtol=1e-4, atol=1e-6)  # type: ignore[arg-type]


def test_signround_equals_a_plain_loop() -> None:
    """The published update, one weight at a time, in float32."""
    weights, known = problem(5)
    weights = weights[:2]
    params = nearest(weights, SCHEME, FITTING["mse"]).params
    assert params is not None
    gram = known.damped.astype(np.float32)
    tensor = ROUNDING["signround"](weights, SCHEME, FITTING["mse"], known)
    for r, row in enumerate(weights):
        shift, factor, best = np.zeros(COLUMNS, np.float32), np.float32(1), np.inf
        for step in range(200):
            scale = np.float32(params.scale[r] * factor)
            level = np.rint(row / scale + shift)
            kept = np.clip(level, -8, 7)
            slope = (kept * scale - row) @ gram
            error = float(slope @ (kept * scale - row))
            if error < best:
                best, codes = error, kept + 8
            rate = np.float32((1 - step / 200) / 200)
            total = 0.0
            for j in range(COLUMNS):
                inside = level[j] == kept[j]
                total += slope[j] * (kept[j] - (row[j] / scale if inside else 0)) * np.sign(scale)
                shift[j] = np.clip(shift[j] - rate * np.sign(slope[j] * scale) * inside, -0.5, 0.5)
            factor = np.clip(factor - rate * np.sign(np.float32(total)), np.float32(0.5), np.float32(1))
        change = tensor.dequantize()[r] - row
        assert change @ gram @ change <= best * 1.02 + 1e-6  # sums in another order may fall into another ending
        assert np.mean(tensor.codes[r] == codes) >= 0.5
