"""A plan keeps its budget in the artifact that is made of it, and says truly what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch", exc_type=ImportError)
pytest.importorskip("scipy", exc_type=ImportError)

import bitwright
from bitwright.allocation.budget import Budget
from bitwright.analysis.ceilings import Ceilings
from bitwright.analysis.documents import Made, plan_document
from bitwright.analysis.planning import Plan, Settings, find_plan
from bitwright.analysis.report.document import parse
from bitwright.calibration.text import Source
from bitwright.core import Recipe
from bitwright.errors import BudgetError
from bitwright.models import load
from bitwright.models.base import LanguageModel

SETTINGS = Settings(
    schemes=("int3-g32", "int4-g32", "int6-g32", "int8-channel"), calibration=Source(windows=4, length=64), threads=1
)


@pytest.fixture
def model(tiny_directory: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LanguageModel:
    monkeypatch.setenv("BITWRIGHT_CACHE", str(tmp_path))
    return load(tiny_directory("llama"))


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
    assert found.measured["divergence"] > 0 and found.interval is not None
    assert len({str(candidate.choice.scheme) for _, candidate in found.candidates()}) > 1
    document = plan_document(Made(model, "bitwright plan"), found, Ceilings())
    page = parse(json.loads(json.dumps(document)))
    assert page.kind == "plan" and page.roofline is not None
    assert {point.name for point in page.roofline.points} == {unit.kind for unit in found.units if not unit.looked_up}


def test_a_plan_for_a_loss_keeps_it(model: LanguageModel) -> None:
    found = find_plan(model, Budget(max_kl=0.05), SETTINGS)
    assert 0 < found.measured["divergence"] <= 0.05


def test_a_budget_that_cannot_be_names_the_nearest(model: LanguageModel) -> None:
    with pytest.raises(BudgetError, match=r"nearest that can be met: --max-size \d"):
        find_plan(model, Budget(max_size=1000), SETTINGS)


def test_an_estimate_measures_nothing(model: LanguageModel) -> None:
    found = find_plan(
        model,
        Budget(objective="size", max_kl=0.5),
        Settings(schemes=SETTINGS.schemes, calibration=SETTINGS.calibration, verify=False),
    )
    assert found.measured == {} and found.interval is None
    assert found.recipe == Recipe.from_dict(json.loads(json.dumps(found.recipe.to_dict())))
