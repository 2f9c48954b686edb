"""Inputs are counted where the engine would round them, and errors of outputs are those that these inputs make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", exc_type=ImportError)

import bitwright
import tiny
from bitwright.analysis.seen_inputs import BINS, on_the_grid, seen_inputs
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
    counts = on_the_grid(rows)
    assert counts.sum() == 8 and counts[0] == counts[-1] == counts[BINS // 2] == 2
