"""A plan whose tensors may be rounded in several ways, from all schemes: what it chooses, says, and is forecast to take."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

pytest.importorskip("torch", exc_type=ImportError)
pytest.importorskip("scipy", exc_type=ImportError)

import bitwright
from bitwright.allocation.budget import Budget
from bitwright.allocation.candidates import stored_as
from bitwright.allocation.device import DeviceCosts
from bitwright.allocation.ways import Way
from bitwright.analysis import plan_forecast
from bitwright.analysis.documents import Made, plan_document
from bitwright.analysis.frontiers import foretold
from bitwright.analysis.plan_forecast import A_CANDIDATE, A_SCHEME, LEFT, SENSITIVITY_PASSES, phases
from bitwright.analysis.planning import Plan, Settings, find_plan
from bitwright.analysis.report.document import parse
from bitwright.calibration.forecast import Forecast
from bitwright.calibration.paces import Rounding, Walking
from bitwright.calibration.text import Source
from bitwright.core import Recipe, Scheme
from bitwright.models import load
from bitwright.models.base import LanguageModel
from bitwright.rounding.needs import is_guided

SETTINGS = Settings(
    schemes=("int3-g32", "int4-g32", "int8-channel"),
    methods=("gptq", "hqq", "gptq+no-rotate"),
    calibration=Source(windows=4, length=32),
    threads=1,
    verify=False,
)
FAST = Budget(max_kl=0.2, objective="speed")


@pytest.fixture
def model(tiny_directory: Callable[[str], Path], cache: Path, monkeypatch: pytest.MonkeyPatch) -> LanguageModel:
    monkeypatch.setenv("BITWRIGHT_CACHE", str(cache))
    monkeypatch.setattr("bitwright.analysis.plan_costs.process_bytes", lambda _: 10**7)
    return load(tiny_directory("llama"))


@pytest.fixture
def found(model: LanguageModel) -> Plan:
    return find_plan(model, FAST, SETTINGS)


def turn_about(found: Plan) -> Plan:
    """The plan with every candidate chosen for some tensor: of its units the first has the first, the second the second."""
    chosen = tuple(number % len(unit.candidates) for number, unit in enumerate(found.units))
    choices = [unit.candidates[index].choice for unit, index in zip(found.units, chosen, strict=True)]
    return replace(found, chosen=chosen, recipe=Recipe(tuple(choices)))


def test_speed_is_known_turned_and_not(found: Plan) -> None:
    assert found.device is not None and set(stored_as(found.units)) == {True, False}
    for unit in found.units:
        for each in unit.candidates if not unit.looked_up else ():
            assert found.device.decode_seconds(each.choice.scheme, unit.whole, each.choice.rotate) > 0


def test_another_machines_figures_serve_for_all_ways(model: LanguageModel, found: Plan, cache: Path) -> None:
    assert find_plan(model, FAST, replace(SETTINGS, device=cache / "device_costs.json")).chosen == found.chosen


def test_what_is_chosen_is_made_in_its_way(model: LanguageModel, found: Plan, tmp_path: Path) -> None:
    mixed = turn_about(found)
    assert {way for unit, each in mixed.candidates() if not unit.looked_up for way in [Way.of(each.choice)]} == {
        Way("gptq"),
        Way("nearest", "hqq"),
        Way("gptq", rotate=False),
    }
    saved = bitwright.quantize(model, mixed.recipe, SETTINGS.calibration).save(tmp_path / "out")
    for unit, each in mixed.candidates():
        (line,) = saved.lines(unit.name)
        assert line.scheme == each.choice.scheme and (line.rotation > 0) == each.choice.rotate
        assert line.stored_bits == each.bits


def test_blocks_of_one_head_may_be_rounded_in_different_ways(model: LanguageModel, tmp_path: Path) -> None:
    head, scheme = model.roles()["head", -1].name, Scheme.parse("int8-channel")
    ways = [Way.parse(way) for way in ("gptq", "hqq", "gptq+no-rotate", "guided")]
    edges = list(pairwise((0, 64, 128, 256, model.shape(head)[0])))
    choices = [way.choice(f"{head}:{begin}-{end}", scheme) for way, (begin, end) in zip(ways, edges, strict=True)]
    saved = bitwright.quantize(model, Recipe(tuple(choices)), SETTINGS.calibration).save(tmp_path / "out")
    assert [line.rotation > 0 for line in saved.lines(head)] == [way.rotate for way in ways]
    error, weights = saved.read(head) - model.read(head), model.read(head)
    for begin, end in edges:
        assert 0 < np.abs(error[begin:end]).max() < 0.05 * np.abs(weights).max()


def test_a_made_plan_keeps_its_size(model: LanguageModel) -> None:
    text = "a quick brown fox jumps over the lazy dog, 12 times or 345. " * 12
    settings = replace(SETTINGS, activations=("int8",), held_out=text, context=32, verify=True, swaps=0)
    found = find_plan(model, Budget(max_size=10**6), settings)
    assert found.foretold["bytes"] == found.measured["bytes"] and found.measured["divergence"] > 0
    assert found.recipe == Recipe.from_dict(json.loads(json.dumps(found.recipe.to_dict())))


def test_pages_and_labels_show_ways_where_there_was_a_choice(model: LanguageModel, found: Plan) -> None:
    mixed = turn_about(found)
    page = parse(json.loads(json.dumps(plan_document(Made(model, "bitwright plan"), mixed))))
    assert {tensor.method for tensor in page.tensors} == {"nearest", "gptq", "hqq", "gptq+no-rotate"}
    labels = {mixed.label(unit, each) for unit, each in mixed.candidates()}
    assert {"int3-g32 gptq", "int3-g32 hqq", "int3-g32 gptq+no-rotate"} & labels and "int3-g32" in labels  # the embedding's
    ups = [fix.to_scheme for fix in page.fixes if "embed" not in fix.tensor]
    assert ups and all(len(name.split()) == 2 for name in ups)
    alone = replace(mixed, units=tuple(replace(unit, candidates=[unit.candidates[0]]) for unit in mixed.units))
    assert {alone.label(unit, unit.candidates[0]) for unit in alone.units} == {"int3-g32"}


def test_a_frontier_has_each_scheme_in_its_best_way(found: Plan) -> None:
    points = {point["label"]: point for point in foretold(found.units, [1.0] * len(found.units), {"bytes": 0, "divergence": 0})}
    assert {"mixed", *SETTINGS.schemes} == set(points)
    for scheme in SETTINGS.schemes:
        losses = [[each.divergence for each in unit.candidates if str(each.choice.scheme) == scheme] for unit in found.units]
        assert points[scheme]["kl"] == pytest.approx(sum(map(min, losses)))


def test_only_schemes_that_are_best_somewhere_are_measured(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    offered = tuple(map(Scheme.parse, ("int3-g32", "pot4-g32", "int4-g32", "int8-channel")))
    measured = []

    def measure(_: object, schemes: list[Scheme], *__: object) -> DeviceCosts:
        measured.append(schemes)
        figures = {"decode_seconds": lambda *_: 1.0, "prefill_seconds": lambda *_: 1.0, "other_seconds": lambda *_: 1.0}
        return cast(DeviceCosts, SimpleNamespace(threads=1, machine="a fake", **figures))

    monkeypatch.setattr("bitwright.analysis.plan_types.engine_schemes", lambda widths: offered)
    monkeypatch.setattr(DeviceCosts, "measured", measure)
    settings = replace(SETTINGS, schemes=("all",), methods=("gptq",))
    found = find_plan(model, FAST, settings)
    left = stored_as(found.units)[True]
    assert measured == [left] * len(settings.activations)
    measured.clear()
    monkeypatch.setattr("bitwright.analysis.plan_devices.TIMED_AT_ONCE", 2)
    assert find_plan(model, FAST, settings).chosen == found.chosen
    assert measured == [left[:2], left[2:]] * len(settings.activations)
    assert list(map(str, left)) == ["int3-g32", "int4-g32", "int8-channel"]  # pot4 is as large as int4, and loses more
    named = find_plan(model, FAST, replace(settings, schemes=tuple(map(str, offered))))
    assert stored_as(named.units)[True] == list(offered)  # what is asked for by name is there


def test_a_forecast_follows_the_number_of_candidates(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounding the model is 8 s of work beside its walk; refining a weight takes twice what gptq takes, nearest a quarter."""
    walk, paces = 1.0, {"gptq": 1.0, "refine": 2.0, "nearest": 0.25, "guided": 2.0}
    monkeypatch.setenv("BITWRIGHT_CACHE", str(tmp_path))
    monkeypatch.setattr(plan_forecast, "forecast", lambda *_: Forecast(0, walk, 0.0, 0))
    monkeypatch.setattr(Walking, "of", classmethod(lambda cls, _: cls(1.0, 1.0, 1.0)))
    monkeypatch.setattr(Rounding, "of", classmethod(lambda cls, method: cls(paces[method], 0.0)))
    asked: list[str] = []

    def made(_: object, offer: Any, way: Way, source: Source, __: Walking) -> Forecast:
        asked.append(way.method)
        return Forecast(0, 8.0 + walk * source.windows * source.length / 64 + 100 * is_guided(way.needs), 0.0, 0)

    monkeypatch.setattr(plan_forecast, "_made", made)
    monkeypatch.setattr(plan_forecast, "PLAN_WINDOWS", 2)
    settings = replace(SETTINGS, verify=True, calibration=Source(windows=2, length=32), activations=("int8",))

    def seconds(**changed: Any) -> tuple[float, float]:
        """Of candidates, and of the device."""
        told = dict(phases(model, replace(settings, **changed), Budget(max_kl=0.2)))
        sensing = told["finding what each tensor's error costs"] - SENSITIVITY_PASSES * walk
        return sensing, told["measuring this device"]

    one = 8 * A_CANDIDATE
    assert seconds(methods=("gptq",)) == pytest.approx((3 * one, 3 * A_SCHEME))
    assert seconds(methods=("gptq",), schemes=("int4-g32",)) == pytest.approx((one, A_SCHEME))
    assert seconds(methods=("gptq", "refine")) == pytest.approx((3 * one * 3, 3 * A_SCHEME))
    assert seconds(methods=("hqq", "gptq", "gptq+no-rotate")) == pytest.approx((3 * one * 2.25, 2 * 3 * A_SCHEME))
    asked.clear()
    assert seconds(methods=("guided",)) == pytest.approx((3 * one, 3 * A_SCHEME))
    assert asked == ["guided", "refine"]  # guiding itself is not done for a candidate
    assert seconds(methods=("gptq+guidance",)) == pytest.approx((3 * one, 3 * A_SCHEME))
    monkeypatch.setattr("bitwright.analysis.plan_types.engine_schemes", lambda widths: tuple(map(Scheme.parse, SETTINGS.schemes)))
    assert seconds(methods=("gptq",), schemes=("all",)) == pytest.approx((3 * one, LEFT * 3 * A_SCHEME))
