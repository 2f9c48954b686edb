"""Inputs are counted where the engine would round them, and errors of outputs are those that these inputs make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", exc_type=ImportError)

import bitwright
import tiny
from bitwright.analysis.seen_inputs import BINS, counts_on_the_grid, input_grid, on_the_grid, seen_inputs
from bitwright.calibration.forward import observe
from bitwright.core import Recipe
from bitwright.models import load

WINDOWS = np.random.default_rng(5).integers(0, tiny.VOCABULARY, (3, 24)).astype(np.int32)


@pytest.mark.parametrize("case", ["llama", "phi3"])
def test_every_matrix_is_seen_once_under_its_inputs(case: str, tiny_directory: Callable[[str], Path]) -> None:
    model = load(tiny_directory(case))
    quantized = bitwright.quantize(model, Recipe.uniform("int4-g32"))
    found = {seen.tensor: seen for seen in seen_inputs(model, quantized, WINDOWS)}
    assert set(found) == {name for name in model.names() if len(model.shape(name)) == 2}
    for inputs in observe(model, WINDOWS):
        for role in inputs.roles:
            name = model.roles()[role, inputs.layer].name
            weights = model.read(name)
            error = (quantized.read(name) - weights).astype(np.float64)
            expected = np.trace(error @ inputs.gram @ error.T) / np.trace(weights @ inputs.gram @ weights.T)
            assert found[name].metrics.output_error == pytest.approx(expected, rel=1e-3)
            counts = found[name].activations
            assert counts is not None and counts.sum() == WINDOWS.size * weights.shape[1]


def test_each_token_is_counted_by_its_own_scale() -> None:
    rows = np.array([[1.0, 0.5, 0.0, -1.0], [200.0, 100.0, 0.0, -200.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
    counts = on_the_grid(rows, (0, 0))
    assert counts.sum() == 8 and counts[0] == counts[-1] == counts[BINS // 2] == 2


def test_scales_are_shared_as_the_engine_shares_them() -> None:
    """By a token where columns are turned; by 32 columns else and of the head, the last few by themselves."""
    assert input_grid(64, "q") == (64, 0) and input_grid(0, "q") == (0, 32) and input_grid(64, "head") == (64, 32)
    row = np.concatenate([np.full(32, 8.0), np.full(32, -1.0), np.full(6, 0.5)]).astype(np.float32)[None]
    together, apart = on_the_grid(row, (0, 0)), on_the_grid(row, (0, 32))
    assert together.sum() == apart.sum() == 70
    assert (together[-1], together[0]) == (32, 0) and (apart[-1], apart[0]) == (38, 32)


@pytest.mark.parametrize(("activations", "largest"), [("int8", 127), ("int16", 32384)])
def test_a_fine_grid_is_its_two_ends(activations: str, largest: int) -> None:
    """Those of the engine: a value at the maximum has the outermost code."""
    shown = counts_on_the_grid(np.ones(BINS, np.int64), activations)
    assert shown["levels"] == [-largest, largest] and shown["level_count"] == 2 * largest + 1
    assert shown["edges"][0] == -largest and shown["edges"][-1] == largest and len(shown["edges"]) == BINS + 1
    assert "levels" not in counts_on_the_grid(np.ones(BINS, np.int64), "fp32")
