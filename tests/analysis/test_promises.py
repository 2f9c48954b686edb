"""What is said of a plan before it is made is kept apart by what it knew, and page and recipe file judge the plan by it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("torch", exc_type=ImportError)
pytest.importorskip("scipy", exc_type=ImportError)

from bitwright.allocation.budget import Budget
from bitwright.allocation.device import DeviceCosts
from bitwright.analysis.climbing import Regained
from bitwright.analysis.documents import Made, plan_document, verdict_of_plan
from bitwright.analysis.plan_costs import BEYOND_SUM
from bitwright.analysis.plan_types import Plan, Settings
from bitwright.analysis.planning import _Planner, find_plan
from bitwright.analysis.report.document import parse
from bitwright.analysis.report.sentences import predicted
from bitwright.analysis.trial import ANSWERS, Trial
from bitwright.artifact import ArtifactModel
from bitwright.calibration.text import Source, unwatched
from bitwright.models import load
from bitwright.models.base import LanguageModel

WORSE = 2.0  # times what is foretold at first, that plans here lose
SETTINGS = Settings(
    schemes=("int3-g32", "int4-g32", "int6-g32", "int8-channel"),
    calibration=Source(windows=4, length=32),
    held_out="a quick brown fox " * 200,
    threads=1,
)


class Worse(_Planner):
    """Plans that are not made, and lose WORSE times what is foretold at first."""

    def _devices(self, _: object) -> dict[str, DeviceCosts]:
        return {}

    def _tried(self, chosen: list[int], _: str) -> tuple[dict[str, float], Trial]:
        sums = self.costs.sums(chosen)
        first = BEYOND_SUM * sum(unit.candidates[index].divergence for unit, index in zip(self.costs.units, chosen, strict=False))
        measured = {quantity: 0.0 for quantity in ANSWERS} | {"bytes": sums["bytes"], "divergence": WORSE * first}
        measured["loss_added"] = measured["divergence"]
        intervals = {quantity: (0.0, 1.0) for quantity in ANSWERS}
        return sums, Trial(cast(ArtifactModel, None), measured, intervals, 1 / (1 + len(self.tried)), None, cast(Any, None))


@pytest.fixture
def model(tiny_directory: Callable[[str], Path], cache: Path, monkeypatch: pytest.MonkeyPatch) -> LanguageModel:
    monkeypatch.setenv("BITWRIGHT_CACHE", str(cache))
    monkeypatch.setattr("bitwright.analysis.plan_costs.process_bytes", lambda _: 10**7)
    monkeypatch.setattr("bitwright.analysis.planning._Planner", Worse)
    return load(tiny_directory("llama"))


def first_sum(found: Plan) -> float:
    return BEYOND_SUM * sum(candidate.divergence for _, candidate in found.candidates())


def test_what_a_plan_taught_is_not_in_its_promise(model: LanguageModel) -> None:
    found = find_plan(model, Budget(max_kl=0.02), replace(SETTINGS, swaps=0))
    first, *later = found.tried
    assert first.name == "plan 1" and [each.name for each in later] == [f"plan {n}" for n in range(2, len(later) + 2)] and later
    assert first.blind == first.promised == first.foretold  # nothing is timed here
    assert first.measured["divergence"] == pytest.approx(WORSE * first.blind["divergence"])
    for each in later:
        assert each.foretold["divergence"] == pytest.approx(WORSE * each.blind["divergence"])
    assert found.promised["divergence"] == found.blind["divergence"] == pytest.approx(first_sum(found))
    assert found.promised["bytes"] == found.measured["bytes"]
    told = json.loads(json.dumps(found.to_dict()))
    assert told["tried"][0]["promised"] == first.promised and told["promised"] == found.promised


def test_a_swap_is_promised_by_costs_alone(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """What restoring tensors of the first plan told is in what is foretold of the next, and not in what is promised."""

    def regained(_: object, __: object, groups: list[list[str]], *___: object) -> list[Regained]:
        return [Regained(1.0 if number % 2 else 0.1, 1e-12) for number in range(len(groups))]

    monkeypatch.setattr("bitwright.analysis.planning.regained", regained)
    roomy = find_plan(model, Budget(max_kl=10.0, objective="loss"), replace(SETTINGS, swaps=0))
    found = find_plan(model, Budget(max_size=int(0.9 * roomy.measured["bytes"])), SETTINGS)
    first, swapped = found.tried
    assert swapped.name == "swap 1" and found.steps[0].kept and found.measured is swapped.measured
    assert found.promised["divergence"] == pytest.approx(first_sum(found)) != pytest.approx(found.foretold["divergence"])
    page = parse(json.loads(json.dumps(plan_document(Made(model, "bitwright plan"), found))))
    told = {one.quantity: one for one in page.predicted}
    assert told["KL"].predicted == pytest.approx(found.promised["divergence"])
    assert told["KL of the first plan"].predicted == pytest.approx(first.promised["divergence"])
    assert told["KL of the first plan"].true == pytest.approx(first.measured["divergence"])
    assert f"(promised {found.promised['divergence']:.3g})" in verdict_of_plan(found)
    assert "untouched by what was measured of any plan" in predicted(page)


@pytest.mark.parametrize(
    ("budget", "kinds"),
    [
        (Budget(max_size=10**6), ("int16",)),
        (Budget(max_kl=0.1, objective="ram"), ("int16",)),
        (Budget(min_speed=1.0), ("int8", "int16")),
        (Budget(max_kl=0.1, objective="prefill"), ("int8", "int16")),
    ],
)
def test_activations_that_lose_something_are_weighed_for_speed_alone(budget: Budget, kinds: tuple[str, ...]) -> None:
    assert Settings().weighing(budget).activations == kinds
    assert Settings(activations=("int8",)).weighing(budget).activations == ("int8",)


def test_what_plans_are_proved_on_is_not_run_before_there_is_one(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of rounded activations is measured on calibration text."""
    seen = list[Any]()

    def measure(_: object, __: object, windows: list[Any], *___: object) -> Any:
        seen.extend(windows)
        raise KeyboardInterrupt

    monkeypatch.setattr("bitwright.analysis.planning.measure", measure)
    planner = Worse(model, Budget(max_size=10**6), replace(SETTINGS, activations=("int8",)), unwatched)
    with pytest.raises(KeyboardInterrupt):
        planner.run()
    assert len(seen) == 4 and not {window.tobytes() for window in seen} & {window.tobytes() for window in planner.proof}
