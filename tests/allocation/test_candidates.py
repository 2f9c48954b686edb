"""Candidates are whole choices: a scheme in several ways is several, each as if it stood alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", exc_type=ImportError)

import tiny
from bitwright.allocation import candidates as module
from bitwright.allocation.candidates import Offer, Unit, choices_for, stored_as
from bitwright.allocation.curvature import Curvature, curvatures
from bitwright.allocation.sensitivity import sensitivities, units_of
from bitwright.allocation.ways import Way, parse_ways
from bitwright.core import Choice, Scheme
from bitwright.models import load
from bitwright.models.base import LanguageModel
from bitwright.rounding.moments import Moments

WINDOWS = np.random.default_rng(1).integers(0, tiny.VOCABULARY, (2, 16)).astype(np.int32)
SCHEMES = tuple(map(Scheme.parse, ("int3-g32", "nf3-g32")))
WAYS = parse_ways(["gptq", "hqq", "gptq+no-rotate"])


@pytest.fixture
def model(
    request: pytest.FixtureRequest, tiny_directory: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> LanguageModel:
    monkeypatch.setenv("BITWRIGHT_CACHE", str(request.getfixturevalue("tmp_path")))
    return load(tiny_directory(getattr(request, "param", "llama")))


@pytest.mark.parametrize("model", ["llama", "smollm2"], indirect=True)  # of the second, head and embedding are one
def test_ways_beside_each_other_cost_what_each_does_alone(model: LanguageModel) -> None:
    together = sensitivities(model, WINDOWS, Offer(SCHEMES, WAYS))
    assert sensitivities(model, WINDOWS, Offer(SCHEMES, WAYS)) == together  # as it was kept
    found: dict[Choice, tuple[int, float]] = {}
    for way in WAYS:
        for unit in sensitivities(model, WINDOWS, Offer(SCHEMES, (way,))):
            found |= {each.choice: (each.bits, each.divergence) for each in unit.candidates}
    for unit in together:
        assert len(unit.candidates) == len(SCHEMES) * (1 if unit.looked_up else len(WAYS))
        for each in unit.candidates:
            assert (each.bits, each.divergence) == (found[each.choice][0], pytest.approx(found[each.choice][1], rel=1e-4))
        losses = {each.divergence for each in unit.candidates if each.choice.scheme == SCHEMES[0]}
        assert len(losses) == len([each for each in unit.candidates if each.choice.scheme == SCHEMES[0]])


@pytest.mark.parametrize("model", ["smollm2"], indirect=True)
def test_a_head_that_is_the_embedding_costs_what_nearest_rounding_does(model: LanguageModel) -> None:
    """Nothing calibrates such a head."""
    gptq, nearest = (sensitivities(model, WINDOWS, Offer(SCHEMES, parse_ways([name]))) for name in ("gptq", "nearest"))
    for one, other in zip(gptq, nearest, strict=True):
        alike = [a.divergence == b.divergence for a, b in zip(one.candidates, other.candidates, strict=True)]
        assert all(alike) if ("head", -1) in one.roles else not any(alike)


def test_each_method_is_shown_what_it_needs(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: dict[tuple[str, str], Any] = {}

    def watched(name: str, tensor: Any, choice: Choice, moments: Moments | None) -> Any:
        shown[name, str(Way.of(choice))] = None if moments is None else moments.gram
        return tensor

    monkeypatch.setattr(module, "quantize_matrix", watched)
    sensitivities(model, WINDOWS, Offer(SCHEMES[:1], parse_ways(["gptq", "guided", "gptq+guidance", "stochastic"])))
    sensitivities(model, WINDOWS, Offer(SCHEMES[:1], parse_ways(["gptaq+guidance"])))
    known: dict[str, Curvature] = {model.roles()[role, layer].name: of for role, layer, of in curvatures(model, WINDOWS)}
    for (name, method), gram in shown.items():
        weighed = "guid" in method and name != model.roles()["head", -1].name  # whose tokens are all alike
        expected = known[name].weighted[0] if weighed else known[name].inputs
        assert (gram is None) == (expected is None)
        assert gram is None or np.allclose(gram, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max()), (name, method)
    methods = {"gptq", "guided", "gptq+guidance", "gptaq+guidance", "stochastic", "nearest+no-rotate"}
    assert {method for _, method in shown} == methods


def test_candidates_of_before_there_was_guidance_are_read(model: LanguageModel, tmp_path: Path) -> None:
    found = sensitivities(model, WINDOWS, Offer(SCHEMES[:1], WAYS))
    (kept,) = tmp_path.glob("sensitivities-*.json")
    kept.write_text(kept.read_text("utf-8").replace('"guidance": false, ', ""), "utf-8")
    assert "guidance" not in kept.read_text("utf-8") and sensitivities(model, WINDOWS, Offer(SCHEMES[:1], WAYS)) == found


def test_a_tensor_is_offered_what_it_can_have() -> None:
    offer = Offer(tuple(map(Scheme.parse, ("int4-g32", "nf4-g32", "int4-g48", "fp16"))), parse_ways(["adaround", "gptq"]))
    said = [(str(c.scheme), c.method, c.rotate) for c in choices_for(Unit("q", (64, 64), [("q", 0)]), offer)]
    assert said == [
        ("int4-g32", "adaround", True),
        ("int4-g32", "gptq", True),
        ("nf4-g32", "gptq", True),  # adaround learns between even steps
        ("fp16", "adaround", False),  # rounded by no method
    ]
    embedding = choices_for(Unit("e", (64, 64), [("embedding", -1)]), offer)
    assert [(c.method, c.rotate) for c in embedding] == [("nearest", False)] * 3
    assert offer.plain().ways == (Way(),)
    assert Offer(SCHEMES, parse_ways(["gptq", "hqq", "hqq+no-rotate"])).plain().ways == (Way(), Way(rotate=False))


def test_what_is_measured_on_a_device_is_turned_and_not(model: LanguageModel) -> None:
    def stored(*ways: str) -> dict[bool, list[str]]:
        units = units_of(model)
        for unit in units:
            offer = Offer(SCHEMES, parse_ways(ways), ((model.roles()["v", 0].name, Scheme.parse("fp16")),))
            unit.candidates = [module.Candidate(choice, 0, 0.0) for choice in choices_for(unit, offer)]
        return {turned: sorted(map(str, schemes)) for turned, schemes in stored_as(units).items()}

    each = ["fp16", "int3-g32", "nf3-g32"]
    assert stored("gptq") == {True: each} and stored("gptq+no-rotate") == {False: each}
    assert stored("gptq", "hqq", "hqq+no-rotate") == {True: each, False: each}
