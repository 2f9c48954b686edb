"""What the cache holds is forecast to take nothing, before a plan begins."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", exc_type=ImportError)
pytest.importorskip("scipy", exc_type=ImportError)

from bitwright.allocation.budget import Budget
from bitwright.analysis.plan_forecast import CHOICE, phases
from bitwright.analysis.plan_known import Known
from bitwright.analysis.planning import Settings, find_plan
from bitwright.calibration.paces import Walking
from bitwright.calibration.text import Source, unwatched
from bitwright.models import load
from bitwright.models.base import LanguageModel

BUDGET = Budget(min_speed=0.001, objective="loss")
SETTINGS = Settings(("int4-g32", "int8-channel"), calibration=Source(windows=3, length=32), threads=1, context=64, swaps=0)
ONCE = {
    "writing calibration text",
    "finding what each tensor's error costs",
    "writing text to verify on",
    "measuring this device",
}


@pytest.fixture
def model(tiny_directory: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LanguageModel:
    monkeypatch.setenv("BITWRIGHT_CACHE", str(tmp_path))
    monkeypatch.setattr("bitwright.analysis.plan_costs.process_bytes", lambda _: 10**7)
    monkeypatch.setattr("bitwright.analysis.plan_texts.HELD_OUT_LENGTH", 32)
    monkeypatch.setattr(Walking, "of", classmethod(lambda cls, _: cls(1e9, 1e9, 1e9)))
    return load(tiny_directory("llama"))


def test_what_a_plan_leaves_in_the_cache_takes_the_next_nothing(model: LanguageModel) -> None:
    cold = dict(phases(model, SETTINGS, BUDGET))
    assert all(cold[name] > 0 for name in ONCE)
    begun, done = list[str](), Known.of(model, SETTINGS.weighing(BUDGET), BUDGET)
    assert (done.units, done.unmeasured, done.before, done.proof) == (None, 4, False, False) and done.unwritten == 20 * 32

    def watch(what: str) -> AbstractContextManager[Callable[[int, int], None]]:
        begun.append(what)
        return unwatched(what)

    found = find_plan(model, BUDGET, SETTINGS, watch)
    assert list(dict.fromkeys(what for what in begun if what in cold)) == [name for name in cold if name != CHOICE[0]]
    known = Known.of(model, SETTINGS.weighing(BUDGET), BUDGET)
    assert known.units is not None and [unit.candidates for unit in known.units if unit.candidates] == [
        unit.candidates for unit in found.units
    ]
    assert (known.unmeasured, known.unwritten, known.before, known.proof) == (0, 0, True, True)
    warm = dict(phases(model, SETTINGS, BUDGET))
    assert {name for name, seconds in warm.items() if seconds == 0} == ONCE
    assert warm["measuring plan 1"] < cold["measuring plan 1"]
    assert warm["measuring what rounded activations cost"] < cold["measuring what rounded activations cost"]
    other = dict(phases(model, replace(SETTINGS, schemes=("int3-g32", "int8-channel")), BUDGET))
    assert {name for name, seconds in other.items() if seconds == 0} == ONCE - {
        "finding what each tensor's error costs",
        "measuring this device",
    }
