"""What a plan's sums say of energy and memory, against what the engine and `bitwright bench` say of the artifact."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", exc_type=ImportError)
pytest.importorskip("scipy", exc_type=ImportError)

import bitwright
from bitwright.allocation.candidates import Candidate, Offer, choices_for
from bitwright.allocation.memory import Running
from bitwright.allocation.sensitivity import units_of
from bitwright.allocation.ways import Way
from bitwright.analysis.benchmark import _estimated
from bitwright.analysis.plan_costs import Costs
from bitwright.analysis.trial import DEPTH
from bitwright.analysis.work import cache_bytes_read, token_multiply_adds, weights_multiplied
from bitwright.core import Recipe, Scheme
from bitwright.engine import Engine
from bitwright.models import load
from bitwright.models.base import LanguageModel
from cli.helpers import tensors, write_model


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LanguageModel:
    monkeypatch.setattr("bitwright.analysis.plan_costs.process_bytes", lambda _: 10**7)
    return load(write_model(tmp_path / "model", tensors()))


def costs_of(model: LanguageModel, *schemes: str) -> Costs:
    units = units_of(model)
    for unit in units:
        choices = choices_for(unit, Offer(tuple(map(Scheme.parse, schemes)), (Way(rotate=False),)))
        unit.candidates = [Candidate(choice, choice.scheme.stored_bits(unit.shape), 0.0) for choice in choices]
    return Costs(model, units, Running(64, 1), {"int8": 0.0})


@pytest.mark.parametrize("scheme", ["int4-g32", "int8-channel", "fp16"])
def test_energy_is_that_of_bench(model: LanguageModel, tmp_path: Path, scheme: str) -> None:
    """The same arithmetic of the same bytes; 16-bit weights are multiplied as floats, and for bench attention is then, too."""
    saved = bitwright.quantize(model, Recipe.uniform(scheme, head=scheme)).save(tmp_path / "out")
    engine = Engine.load(saved, threads=1)
    cached = cache_bytes_read(model.architecture, engine.cache_bytes / engine.context, DEPTH)
    expected = _estimated(saved, engine, DEPTH, engine.weight_bytes + cached).joules
    if scheme == "fp16":
        attended = token_multiply_adds(model.architecture, DEPTH) - weights_multiplied(model.architecture)
        expected -= attended * (4.6e-12 - 0.3e-12)
    costs = costs_of(model, scheme)
    assert costs.sums([0] * (len(costs.units) + 1))["joules"] == pytest.approx(expected, rel=1e-6)


def test_the_least_is_that_of_the_best_choice(model: LanguageModel) -> None:
    costs = costs_of(model, "int3-g32", "int4-g32", "int8-channel")
    for quantity in ("bytes", "ram", "joules"):
        assert costs.least(quantity) == pytest.approx(costs.sums(costs.choose(quantity, {}))[quantity], rel=1e-4)
