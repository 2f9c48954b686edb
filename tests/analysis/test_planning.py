"""A plan keeps its budget in the artifact that is made of it, and says truly what was measured."""

from __future__ import annotations

import functools
import json
import math
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
from bitwright.allocation.budget import OBJECTIVES, Budget, parse_bytes
from bitwright.allocation.candidates import Candidate, Offer, choices_for
from bitwright.allocation.device import DeviceCosts
from bitwright.allocation.memory import Running, cache_bytes, process_bytes
from bitwright.allocation.sensitivity import units_of
from bitwright.allocation.ways import Way
from bitwright.analysis.ceilings import Ceilings
from bitwright.analysis.documents import Made, plan_document
from bitwright.analysis.evaluate import joined, measure
from bitwright.analysis.plan_costs import BEYOND_SUM, Costs
from bitwright.analysis.planning import LOSS_OF_DROP, LUCK, Plan, Settings, _Planner, find_plan, plan
from bitwright.analysis.report.document import parse
from bitwright.analysis.rooflines import ATTENTION
from bitwright.analysis.scores import Scores
from bitwright.analysis.tasks.paired import Drop
from bitwright.analysis.trial import ANSWERS, Trial
from bitwright.artifact import ArtifactModel
from bitwright.calibration.text import Source, unwatched
from bitwright.core import Recipe, Scheme
from bitwright.errors import BudgetError
from bitwright.models import load
from bitwright.models.base import LanguageModel
from bitwright.runtime import RuntimeSetting, activations_of

SETTINGS = Settings(
    schemes=("int3-g32", "int4-g32", "int6-g32", "int8-channel"), calibration=Source(windows=4, length=64), threads=1
)


measured_once = functools.cache(process_bytes)  # it starts a process


@pytest.fixture
def model(tiny_directory: Callable[[str], Path], cache: Path, monkeypatch: pytest.MonkeyPatch) -> LanguageModel:
    monkeypatch.setenv("BITWRIGHT_CACHE", str(cache))
    monkeypatch.setattr("bitwright.analysis.plan_costs.process_bytes", measured_once)
    return load(tiny_directory("llama"))


@pytest.fixture
def own_cache(model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one, for tests of what is measured and when."""
    monkeypatch.setenv("BITWRIGHT_CACHE", str(tmp_path))
    return tmp_path


def made(model: LanguageModel, found: Plan, output: Path) -> int:
    saved = bitwright.quantize(model, found.recipe, SETTINGS.calibration).save(output)
    return sum(path.stat().st_size for path in saved.path.rglob("*"))


def test_a_plan_for_a_size_is_of_that_size(model: LanguageModel, tmp_path: Path) -> None:
    smallest, largest = (
        sum(
            path.stat().st_size
            for path in bitwright.quantize(model, Recipe.uniform(scheme, head=scheme)).save(tmp_path / scheme).path.iterdir()
        )
        for scheme in ("int3-g32", "int8-channel")
    )
    limit = (smallest + largest) // 2 + 4000  # reasons take space in so small a model
    found = find_plan(model, Budget(max_size=limit), SETTINGS)
    assert found.foretold["bytes"] == found.measured["bytes"] == made(model, found, tmp_path / "out") <= limit
    assert found.measured["divergence"] > 0 and "divergence" in found.intervals
    assert len({str(candidate.choice.scheme) for _, candidate in found.candidates()}) > 1
    document = plan_document(Made(model, "bitwright plan"), found, Ceilings())
    page = parse(json.loads(json.dumps(document)))
    assert page.kind == "plan" and page.roofline is not None
    kinds = {unit.kind for unit in found.units if not unit.looked_up}
    assert {point.name for point in page.roofline.points} == {*kinds, ATTENTION}
    assert (page.activations, page.kv_cache) == ("int16", "fp16")  # nothing asks for speed
    assert {histogram.name for histogram in page.histograms} == {unit.name for unit in found.units}
    counted = {unit.name for unit in found.units if not unit.looked_up}
    drawn = {one.name: one.activations for one in page.histograms if one.activations is not None}
    assert set(drawn) == counted and {counts.level_count for counts in drawn.values()} == {2 * 32384 + 1}


def test_a_plan_for_a_loss_keeps_it(model: LanguageModel) -> None:
    found = find_plan(model, Budget(max_kl=0.05), SETTINGS)
    assert 0 < found.measured["divergence"] <= 0.05


@pytest.mark.parametrize(
    ("budget", "nearest"),
    [
        (Budget(max_size=1000), r"--max-size \d"),
        (Budget(max_ram=10**6, max_size=10**9), r"--max-ram \d"),
        (Budget(max_energy=1e-12), r"--max-energy \S+ \(an estimate\)$"),
    ],
)
def test_what_no_candidate_can_meet_is_refused_before_any_text(
    model: LanguageModel, own_cache: Path, monkeypatch: pytest.MonkeyPatch, budget: Budget, nearest: str
) -> None:
    monkeypatch.setattr(Source, "tokens", lambda *_: pytest.fail("a text was written"))
    with pytest.raises(BudgetError, match=f"nearest that can be met: {nearest}"):
        find_plan(model, budget, SETTINGS)


def test_the_nearest_peak_of_memory_can_be_met(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitwright.analysis.plan_costs.process_bytes", lambda _: 10**7)  # varies from time to time
    quick = replace(SETTINGS, verify=False)
    with pytest.raises(BudgetError) as refusal:
        find_plan(model, Budget(max_ram=10**6), quick)
    nearest = parse_bytes(str(refusal.value).rpartition("--max-ram ")[2])
    assert 0.99 * nearest < find_plan(model, Budget(max_ram=nearest), quick).foretold["ram"] <= nearest


def test_each_objective_is_reached_best_by_its_own_plan(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitwright.analysis.plan_costs.process_bytes", lambda _: 10**7)  # varies from time to time
    quick = replace(SETTINGS, schemes=("int3-g32", "int4-g32", "int8-channel"), verify=False)
    found = {name: find_plan(model, Budget(max_kl=0.05, objective=name), quick) for name in OBJECTIVES}
    for name, quantity in OBJECTIVES.items():
        assert found[name].foretold["divergence"] <= 0.05
        others = [other.foretold[quantity] for other in found.values() if quantity in other.foretold]
        assert found[name].foretold[quantity] <= min(others) * 1.001 and len(others) > 1
    assert found["ram"].recipe.runtime[-1].kv_cache == "int8"  # a cache is memory, too; int4 would cost .057


class Judged(_Planner):
    """Plans whose KL is `beyond` times the sum that is foretold, and whose text loses `added` times as much."""

    beyond = added = 1.0

    def _devices(self, _: object) -> dict[str, DeviceCosts]:
        return {}

    def _tried(self, chosen: list[int], _: str) -> tuple[dict[str, float], Trial]:
        sums = self.costs.sums(chosen)
        kl = self.beyond * sums["divergence"] / self.costs.scale["divergence"]
        measured = {"bytes": sums["bytes"], "divergence": kl, "loss_added": self.added * kl}
        intervals = {"divergence": (0.0, 1.0), "loss_added": (-1.0, 1.0)}
        return sums, Trial(cast(ArtifactModel, None), measured, intervals, kl, None, cast(Any, None))


def test_a_limit_on_perplexity_holds_of_what_was_measured(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitwright.analysis.planning._Planner", Judged)
    settings = replace(SETTINGS, activations=("int16",), held_out="a quick brown fox " * 200, swaps=0)
    limit = math.log(1.01)
    for added in (3.0, 0.3, -0.1):
        monkeypatch.setattr(Judged, "added", added)
        found = find_plan(model, Budget(max_drop=0.01), settings)
        assert found.measured["loss_added"] <= limit and found.intervals["loss_added"] == (-1, 1)
        if added < 1:  # more KL than the share of perplexity would be, were the two the same
            assert 1.2 * limit < found.measured["divergence"] <= LUCK * limit
    monkeypatch.setattr(Judged, "added", 100.0)
    with pytest.raises(BudgetError, match=r"nearest.*: --max-drop \d\S*%$"):
        find_plan(model, Budget(max_drop=0.01), settings)


class Asked(Judged):
    """Whose task's score falls by a fifth of the KL."""

    def _tried(self, chosen: list[int], what: str) -> tuple[dict[str, float], Trial]:
        sums, trial = super()._tried(chosen, what)
        fallen = trial.measured["divergence"] / LOSS_OF_DROP
        return sums, replace(trial, drop=Drop(1 - fallen, 1.0, fallen))


@pytest.mark.parametrize(("perplexity", "task"), [(0.01, 0.05), (0.5, 0.002)])
def test_limits_on_perplexity_and_on_a_task_hold_together(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, perplexity: float, task: float
) -> None:
    """Either may be the one that decides."""
    monkeypatch.setattr("bitwright.analysis.planning._Planner", Asked)
    held_out = "a quick brown fox " * 200
    settings = replace(SETTINGS, activations=("int16",), held_out=held_out, swaps=0, task=lambda _: 1.0)
    found = find_plan(model, Budget(max_drop=perplexity, max_task_drop=task), settings)
    assert found.drop is not None and found.drop.drop <= task
    assert found.measured["loss_added"] <= math.log1p(perplexity)
    used = max(found.drop.drop / task, found.measured["loss_added"] / math.log1p(perplexity))
    assert used > 0.4  # limits are not kept by giving everything


def test_a_plan_that_keeps_its_limits_is_given_though_the_next_cannot_be(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Perplexity is within its limit by luck; by what was learnt of the KL no other plan of this size would be."""
    monkeypatch.setattr("bitwright.analysis.planning._Planner", Judged)
    monkeypatch.setattr(Judged, "beyond", 5.0)
    monkeypatch.setattr(Judged, "added", -0.1)
    settings = replace(SETTINGS, activations=("int16",), held_out="a quick brown fox " * 200, swaps=0)
    with monkeypatch.context() as once:
        once.setattr("bitwright.analysis.planning.ROUNDS", 1)
        first = find_plan(model, Budget(max_drop=0.01), settings)
    again = find_plan(model, Budget(max_drop=0.01, max_size=int(first.foretold["bytes"])), settings)
    assert again.chosen == first.chosen


def test_the_public_face_takes_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    def task(_: LanguageModel) -> float:
        return 1.0

    def find(_: object, budget: Budget, settings: Settings) -> SimpleNamespace:
        assert budget == Budget(max_size=5, max_task_drop=0.01) and settings == Settings(task=task)
        return SimpleNamespace(recipe="found")

    monkeypatch.setattr("bitwright.analysis.planning.find_plan", find)
    assert plan(cast(LanguageModel, None), max_bytes=5, max_task_drop=0.01, task=task) == cast(Recipe, "found")


def test_an_estimate_measures_nothing(model: LanguageModel) -> None:
    found = find_plan(
        model,
        Budget(objective="size", max_kl=0.5),
        Settings(schemes=SETTINGS.schemes, calibration=SETTINGS.calibration, verify=False),
    )
    assert found.measured == {} and found.intervals == {}
    assert found.recipe == Recipe.from_dict(json.loads(json.dumps(found.recipe.to_dict())))


def test_another_budget_for_another_machine_measures_nothing_again(
    model: LanguageModel, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = replace(SETTINGS, verify=False)
    here = find_plan(model, Budget(min_speed=1.0), quick)
    stored = json.loads((own_cache / "device_costs.json").read_text("utf-8"))
    copied = own_cache / "copied.json"

    def slower(times: int) -> Path:
        figures = {name: seconds * (1 if ", positions" in name else times) for name, seconds in stored["figures"].items()}
        copied.write_text(json.dumps({"machine": stored["machine"] | {"host": "elsewhere"}, "figures": figures}), "utf-8")
        return copied

    monkeypatch.setattr("bitwright.allocation.sensitivity._keep", lambda *_: pytest.fail("found again"))
    monkeypatch.setattr(DeviceCosts, "measured", lambda *_: pytest.fail("measured"))
    alike = find_plan(model, Budget(min_speed=1.0), replace(quick, device=slower(1)))
    there = find_plan(model, Budget(min_speed=1.0), replace(quick, device=slower(2)))
    assert there.device is not None and there.device.machine.startswith("elsewhere: ")
    assert there.recipe == here.recipe
    assert there.foretold["seconds"] == pytest.approx(2 * alike.foretold["seconds"])
    proved = find_plan(model, Budget(min_speed=1.0), replace(SETTINGS, device=copied, swaps=0))
    # the speed of this machine would prove nothing
    assert {"bytes", "ram", *ANSWERS} == set(proved.measured)


def test_a_swap_is_kept_only_where_it_measures_better(model: LanguageModel) -> None:
    found = find_plan(
        model, Budget(objective="loss", max_size=10**9), replace(SETTINGS, schemes=("int3-g32", "int4-g32"), swaps=2)
    )
    assert found.steps == ()  # everything has the most bits already: nothing to swap
    size = int(0.94 * found.measured["bytes"])
    climbed = find_plan(model, Budget(max_size=size), replace(SETTINGS, swaps=2))
    plain = find_plan(model, Budget(max_size=size), replace(SETTINGS, swaps=0))
    assert climbed.measured["bytes"] <= size and plain.steps == ()
    for before, after in pairwise(climbed.steps):
        assert before.kept and after.before == before.after
    for step in climbed.steps:
        assert step.swapped > 0 and step.kept == (step.after < step.before)
    if not any(step.kept for step in climbed.steps):
        assert climbed.measured["divergence"] == plain.measured["divergence"]
    written = json.loads(json.dumps(climbed.to_dict()))["swaps"]
    assert [step["kept"] for step in written] == [step.kept for step in climbed.steps]


def test_speed_and_memory_are_measured_too(model: LanguageModel) -> None:
    found = find_plan(model, Budget(objective="loss"), SETTINGS)
    assert set(found.measured) - {"joules"} == {*ANSWERS, "bytes", "seconds", "prefill", "ram", "slowness", "prefill_slowness"}
    assert all(value > 0 for name, value in found.measured.items() if name not in ("loss_added", "flips"))
    between = found.intervals["loss_added"]
    assert between[0] <= found.measured["loss_added"] <= between[1]
    told = json.loads(json.dumps(found.to_dict()))
    assert told["measured_loss_added_interval"] == list(between) and told["energy_source"] == "estimate"


def test_a_plan_says_how_far_its_answers_are(model: LanguageModel, tmp_path: Path) -> None:
    """Its figures are those of the artifact that its recipe makes, on the windows that it was proved on."""
    text = "a quick brown fox jumps over the lazy dog, 12 times or 345. " * 40
    settings = replace(SETTINGS, schemes=("int3-g32", "int4-g32"), activations=("int8",), held_out=text, swaps=0)
    planner = _Planner(model, Budget(objective="loss", max_size=10**9), settings, unwatched)
    found = planner.run()
    saved = bitwright.quantize(model, found.recipe, SETTINGS.calibration).save(tmp_path / "out")
    scores: Scores = joined(measure(saved, model, planner.proof, "int8", None))
    measured, kl = found.measured, np.sort(scores.kl)
    assert measured["divergence"] == pytest.approx(kl.mean()) and measured["kl_max"] == pytest.approx(kl[-1])
    assert measured["kl_p99"] == pytest.approx(kl[math.ceil(0.99 * len(kl)) - 1])
    assert measured["top1_agreement"] == pytest.approx(scores.agree.mean()) == 1 - measured["flips"] and measured["flips"] > 0
    for quantity in ("divergence", "kl_p99", "top1_agreement", "flips"):
        low, high = found.intervals[quantity]
        assert low <= measured[quantity] <= high
    told = json.loads(json.dumps(found.to_dict()))
    assert told["measured_divergence_interval"] == list(found.intervals["divergence"]) and told["measured"] == measured
    shown = plan_document(Made(model, "bitwright plan"), found)["whole"]
    assert {name: shown[name] for name in ANSWERS.values()} == {name: measured[quantity] for quantity, name in ANSWERS.items()}
    assert shown["kl_p99_interval"] == list(found.intervals["kl_p99"])


def test_a_cache_narrows_where_memory_is_short(model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So little memory that the KV cache of the context has to give way; the artifact carries the thresholds."""
    monkeypatch.setattr("bitwright.analysis.plan_costs.process_bytes", lambda _: 10**7)  # a cache so small is lost in its noise
    context = model.architecture.context_length
    settings = replace(SETTINGS, verify=False, context=context, activations=("int8",))
    roomy = find_plan(model, Budget(objective="loss", max_ram=10**10), settings)
    assert roomy.recipe.runtime == ()
    wide, narrow = (cache_bytes(model.architecture, Running(context, 1, kind)) for kind in ("fp16", "int8"))
    tight = int(roomy.foretold["ram"] - 0.9 * (wide - narrow))
    found = find_plan(model, Budget(objective="loss", max_ram=tight), replace(settings, schemes=("int8-channel",)))
    assert found.recipe.runtime[-1].kv_cache == "int8" and found.foretold["ram"] <= tight
    saved = bitwright.quantize(model, found.recipe, SETTINGS.calibration).save(tmp_path / "narrow")
    assert saved.runtime == found.recipe.runtime


def test_a_tasks_drop_is_kept(model: LanguageModel) -> None:
    """A task that counts how far the head is from the model's own: the smallest plan that keeps it is looked for."""
    head = model.read(model.roles()["head", -1].name)

    def near(other: LanguageModel) -> float:
        stored = other.read(other.roles()["head", -1].name)
        return -float(((stored - head) ** 2).sum() / (head**2).sum())

    found = find_plan(model, Budget(max_task_drop=0.005), replace(SETTINGS, task=near, swaps=0))
    assert found.drop is not None and 0 < found.drop.drop <= 0.005 and found.drop.score_reference == 0.0
    with pytest.raises(BudgetError, match="--task"):
        find_plan(model, Budget(max_task_drop=0.005), SETTINGS)


def test_activations_are_chosen_with_the_schemes(model: LanguageModel, tmp_path: Path) -> None:
    found = find_plan(model, Budget(max_size=10**6), SETTINGS)
    assert found.activations == "int16" and found.noise == 0  # nothing asks for speed
    assert found.recipe.runtime == (RuntimeSetting(activations="int16"),)
    saved = bitwright.quantize(model, found.recipe, SETTINGS.calibration).save(tmp_path / "out")
    assert activations_of(saved) == "int16"
    kept = find_plan(model, Budget(max_size=10**6), replace(SETTINGS, activations=("int8",)))
    assert kept.activations == "int8" and kept.noise > 0 and kept.recipe.runtime == ()


def test_a_limit_on_speed_decides_between_kinds_of_activations(model: LanguageModel) -> None:
    units = [unit for unit in units_of(model) if not unit.looked_up]
    for unit in units:
        choices = choices_for(unit, Offer((Scheme.parse("int4-g32"), Scheme.parse("int8-channel")), (Way(rotate=False),)))
        unit.candidates = [Candidate(choice, 100 * (2 - i), 0.01 * (i + 1)) for i, choice in enumerate(choices)]
    fast, slow = (
        cast(
            DeviceCosts,
            SimpleNamespace(
                decode_seconds=lambda *_, each=each: each,
                prefill_seconds=lambda *_, each=each: each,
                other_seconds=lambda *_: 0.0,
            ),
        )
        for each in (1.0, 3.0)
    )
    costs = Costs(model, units, Running(16, 1), {"int8": 0.5, "int16": 0.0}, {"int8": fast, "int16": slow})
    for limit, kind in ((3.0 * len(units), "int16"), (2.9 * len(units), "int8")):
        chosen = costs.choose("divergence", {"seconds": limit})
        assert costs.activations(chosen) == kind and costs.sums(chosen)["seconds"] <= limit
        assert costs.sums(chosen)["divergence"] == pytest.approx(
            BEYOND_SUM * 0.01 * len(units) + (0.5 if kind == "int8" else 0.0)
        )
    with pytest.raises(BudgetError) as refusal:
        costs.choose("divergence", {"seconds": 0.5 * len(units)})
    assert refusal.value.nearest["seconds"] == pytest.approx(len(units))


def test_tensors_whose_scheme_is_given_keep_it(model: LanguageModel) -> None:
    settings = replace(SETTINGS, fixed=(("lm_head*", "int8-channel"), ("*.0.*.v_proj*", "fp16")), swaps=0)
    found = find_plan(model, Budget(max_kl=0.2), settings)
    schemes = {unit.name: str(candidate.choice.scheme) for unit, candidate in found.candidates()}
    assert schemes["model.layers.0.self_attn.v_proj.weight"] == "fp16" and schemes["lm_head.weight"] == "int8-channel"
    assert schemes["model.layers.1.self_attn.v_proj.weight"] != "fp16"
