"""Losses measured one tensor at a time are those of whole runs by the slow twin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", exc_type=ImportError)

import bitwright
import tiny
from bitwright.analysis.attribution import attribute
from bitwright.analysis.probe import Probe
from bitwright.core import Recipe
from bitwright.engine import reference
from bitwright.models import load
from bitwright.models.base import LanguageModel

WINDOWS = np.random.default_rng(5).integers(0, tiny.VOCABULARY, (3, 24)).astype(np.int32)


def divergence_by_twin(model: LanguageModel, other: LanguageModel) -> np.ndarray:
    parts = []
    for window in WINDOWS:
        p, q = (np.asarray(reference.forward(each, window), np.float64) for each in (model, other))
        p, q = (x - np.logaddexp.reduce(x, axis=-1, keepdims=True) for x in (p, q))
        parts.append((np.exp(p) * (p - q)).sum(-1))
    return np.concatenate(parts)


@pytest.mark.parametrize("case", ["llama", "qwen3", "gemma2", "phi3"])
def test_divergence_is_that_of_whole_runs(case: str, tiny_directory: Callable[[str], Path]) -> None:
    model = load(tiny_directory(case))
    probe, matrices = Probe(model, WINDOWS), [name for name in model.names() if len(model.shape(name)) == 2]
    assert probe.divergence({}).max() < 1e-5
    for name in (matrices[0], matrices[3], matrices[-1]):
        changed = bitwright.quantize(model, Recipe.from_dict({"choices": [{"pattern": name, "scheme": "int3-channel"}]}))
        found = probe.divergence({name: changed.read(name)})
        np.testing.assert_allclose(found, divergence_by_twin(model, changed), rtol=2e-3, atol=2e-5)


def test_attribution_adds_up_to_its_parts(tiny_directory: Callable[[str], Path]) -> None:
    model = load(tiny_directory("llama"))
    quantized = bitwright.quantize(model, Recipe.uniform("int4-g32"))
    found = attribute(model, quantized, WINDOWS, repair=model.read)
    assert found.together == pytest.approx(divergence_by_twin(model, quantized).mean(), rel=1e-2)
    assert [share.alone for share in found.shares] == sorted((share.alone for share in found.shares), reverse=True)
    assert found.cumulative[0] <= found.cumulative[-1] and len(found.cumulative) == model.architecture.layers + 1
    probe = Probe(model, WINDOWS)
    for share in found.shares[:3]:
        assert share.alone == pytest.approx(probe.divergence({share.tensor: quantized.read(share.tensor)}).mean(), rel=1e-6)
        assert share.alone_interval[0] <= share.alone <= share.alone_interval[1]
    worst = found.shares[0]
    repair = next(repair for repair in found.repairs if repair.tensor == worst.tensor)
    assert repair.before - repair.after == pytest.approx(worst.regained, abs=1e-7)  # restored whole
    assert 0.5 < found.sum_of_parts / found.together < 2
