"""Where the processor counts its energy a plan is held against that, and against an estimate elsewhere. Counters are made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytest.importorskip("torch", exc_type=ImportError)
pytest.importorskip("scipy", exc_type=ImportError)

from bitwright.allocation.budget import Budget
from bitwright.allocation.energy import Meter
from bitwright.analysis.documents import Made, plan_document
from bitwright.analysis.planning import Plan, Settings, find_plan
from bitwright.analysis.report.document import parse
from bitwright.analysis.trial import METERED, METERED_TOKENS, _energy
from bitwright.calibration.text import Source
from bitwright.engine import Engine
from bitwright.errors import BudgetError
from bitwright.models import load
from bitwright.models.base import LanguageModel

SETTINGS = Settings(
    schemes=("int3-g32", "int4-g32", "int8-channel"),
    methods=("nearest",),
    calibration=Source(windows=4, length=64),
    held_out="a quick brown fox jumps over the lazy dog " * 60,
    activations=("int16",),
    threads=1,
    swaps=0,
)
IDLE, JOULES_A_BYTE = 0.01, 1e-6  # of a token in any case, and for the weights that it reads: far more than is estimated


class Powercap:
    """A folder as Linux has it, whose package counts a token's joules when `decoded` is called."""

    def __init__(self, root: Path) -> None:
        self.root, self.counter = root, root / "intel-rapl:0" / "energy_uj"
        self.counter.parent.mkdir()
        for name, text in (("name", "package-0"), ("energy_uj", "4000"), ("max_energy_range_uj", f"{2**40}")):
            (self.counter.parent / name).write_text(text + "\n")

    def decoded(self, weight_bytes: int) -> None:
        taken = round(1e6 * (IDLE + JOULES_A_BYTE * weight_bytes))
        self.counter.write_text(f"{int(self.counter.read_text()) + taken}\n")

    def meter(self) -> Meter:
        found = Meter.of_this_machine(self.root)
        assert found is not None
        return found


@pytest.fixture
def powercap(tmp_path: Path) -> Powercap:
    return Powercap(tmp_path)


@pytest.fixture
def counted(powercap: Powercap, monkeypatch: pytest.MonkeyPatch) -> Powercap:
    """All engines' tokens are counted there, and a plan finds the folder."""
    decode, meter = Engine.decode, powercap.meter()

    def counting(engine: Engine, token: int) -> Any:
        powercap.decoded(engine.weight_bytes)
        return decode(engine, token)

    monkeypatch.setattr(Engine, "decode", counting)
    monkeypatch.setattr("bitwright.analysis.trial.Meter", SimpleNamespace(of_this_machine=lambda: meter))
    return powercap


@pytest.fixture
def model(tiny_directory: Callable[[str], Path], cache: Path, monkeypatch: pytest.MonkeyPatch) -> LanguageModel:
    monkeypatch.setenv("BITWRIGHT_CACHE", str(cache))
    monkeypatch.setattr("bitwright.analysis.plan_costs.process_bytes", lambda _: 10**7)
    monkeypatch.setattr("bitwright.analysis.trial.true_peak", lambda *_: 10**7)
    return load(tiny_directory("llama"))


def test_a_token_is_counted_alone(powercap: Powercap) -> None:
    """Without its prompt, at the depth where speed is told."""
    calls: list[int] = []

    class Counting:
        context = 40

        def prefill(self, tokens: Any) -> None:
            calls.append(len(tokens))
            powercap.decoded(10**9)

        def decode(self, token: int) -> None:
            powercap.decoded(1000)

    engine = cast(Engine, Counting())
    assert _energy(engine, 30, powercap.meter()) == {"joules": pytest.approx(IDLE + JOULES_A_BYTE * 1000)}
    assert calls == [30] * METERED and METERED_TOKENS > 10
    assert _energy(engine, 30, None) == {}


def joules_of(found: Plan) -> float:
    return found.measured["joules"]


def test_a_limit_is_verified_by_the_counters(model: LanguageModel, counted: Powercap) -> None:
    """Estimates are far below what is counted, so the first plan is beyond the limit, and corrects them."""
    free = find_plan(model, Budget(objective="loss"), SETTINGS)
    assert joules_of(free) > 100 * free.foretold["joules"]
    limit = 0.85 * joules_of(free)
    found = find_plan(model, Budget(max_energy=limit), SETTINGS)
    assert 0.5 * limit < joules_of(found) <= limit and found.recipe != free.recipe
    assert found.foretold["joules"] == pytest.approx(joules_of(found), rel=0.1)  # as corrected
    told = json.loads(json.dumps(found.to_dict()))
    assert told["energy_source"] == "RAPL" and told["measured"]["joules"] == joules_of(found)
    page = parse(json.loads(json.dumps(plan_document(Made(model, "bitwright plan"), found))))
    assert page.energy is not None and (page.energy.joules_per_token, page.energy.how) == (joules_of(found), "RAPL")
    (kept,) = page.budget
    assert (kept.quantity, kept.reached, kept.unit, kept.met) == ("max-energy", joules_of(found), "J a token (RAPL)", True)
    assert "energy" not in {one.quantity for one in page.predicted}  # the estimate was never meant to foretell it


def test_a_limit_that_counters_say_cannot_be_kept(model: LanguageModel, counted: Powercap) -> None:
    with pytest.raises(BudgetError, match="nearest.*--max-energy"):
        find_plan(model, Budget(max_energy=IDLE / 2), SETTINGS)


def test_the_least_energy_is_what_is_counted(model: LanguageModel, counted: Powercap) -> None:
    found = find_plan(model, Budget(max_kl=0.5, objective="energy"), SETTINGS)
    wide = find_plan(model, Budget(objective="loss"), SETTINGS)
    assert joules_of(found) < joules_of(wide) and found.measured["divergence"] <= 0.5


def test_another_machines_energy_is_an_estimate(model: LanguageModel, counted: Powercap, cache: Path) -> None:
    there = replace(SETTINGS, device=cache / "device_costs.json")
    found = find_plan(model, Budget(objective="loss"), SETTINGS)
    assert "joules" in found.measured  # and the costs of this machine are in the cache now
    elsewhere = find_plan(model, Budget(objective="loss"), there)
    assert "joules" not in elsewhere.measured and elsewhere.energy_source == "estimate"
