"""Text that calibration saw is refused by everything that measures on text, saved or not, unless the user says otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", exc_type=ImportError)

import bitwright
import bitwright.analysis.compare as comparing
from bitwright import _native
from bitwright.allocation.budget import Budget
from bitwright.analysis.analyze import Examined, analyze
from bitwright.analysis.compare import Ruler, compare
from bitwright.analysis.documents import Made
from bitwright.analysis.planning import Settings, find_plan
from bitwright.analysis.tasks import compare_task, file_task, read_task
from bitwright.artifact import ArtifactModel
from bitwright.calibration.marks import remembered
from bitwright.calibration.text import Source
from bitwright.core import Recipe
from bitwright.errors import TextError
from bitwright.models import load
from bitwright.models.base import LanguageModel
from bitwright.quantization import QuantizedModel
from cli.helpers import tensors, write_model

GPTQ, NEAREST = Recipe.uniform("int4-g32", "gptq"), Recipe.uniform("int4-g32")
REFUSED = "calibration saw .* of this text"


def words(seed: int, count: int) -> str:
    random = np.random.default_rng(seed)
    return " ".join("".join(random.choice(list("abcdefgh"), 4)) for _ in range(count))


SEEN, UNSEEN = words(1, 400), words(2, 400)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "fastest_threads", lambda: 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load(write_model(tmp_path_factory.mktemp("unseen") / "model", tensors()))


@pytest.fixture(scope="module")
def seen_file(model: LanguageModel) -> Path:
    path = model.path.parent / "seen.txt"
    path.write_text(SEEN, "utf-8")
    return path


@pytest.fixture(scope="module")
def source(seen_file: Path) -> Source:
    return Source(str(seen_file), 16, 128)


@pytest.fixture(scope="module")
def saved(model: LanguageModel, source: Source) -> ArtifactModel:
    return bitwright.quantize(model, GPTQ, source).save(model.path.parent / "gptq")


@pytest.fixture
def unsaved(model: LanguageModel, source: Source) -> QuantizedModel:
    return bitwright.quantize(model, GPTQ, source)


def test_an_unsaved_model_remembers_what_its_artifact_will(unsaved: QuantizedModel, saved: ArtifactModel) -> None:
    assert remembered(unsaved) == remembered(saved) != frozenset()


def test_a_model_made_of_one_that_was_calibrated_remembers_it(saved: ArtifactModel, model: LanguageModel, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text(UNSEEN, "utf-8")
    again = bitwright.quantize(saved, NEAREST)
    both = bitwright.quantize(again, GPTQ, Source(str(tmp_path / "more.txt"), 4, 128))
    assert remembered(again) == remembered(again.save(tmp_path / "again")) == remembered(saved) < remembered(both)
    assert remembered(bitwright.quantize(model, NEAREST)) == frozenset()


@pytest.mark.parametrize("kind", ["saved", "unsaved"])
def test_evaluate(kind: str, model: LanguageModel, request: pytest.FixtureRequest) -> None:
    quantized, options = request.getfixturevalue(kind), {"context": 256, "tokens": 1500}
    with pytest.raises(TextError, match=f"{REFUSED}; evaluate on another text, or pass --allow-seen"):
        bitwright.evaluate(quantized, model, SEEN, **options)
    assert bitwright.evaluate(quantized, model, SEEN, **options, allow_seen=True).tokens > 1000
    assert bitwright.evaluate(quantized, model, UNSEEN, **options).tokens > 1000


def test_analyze_refuses_before_it_calibrates(model: LanguageModel, seen_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examined, made = Examined(SEEN, 1500, 256), Made(model, "bitwright analyze")
    with monkeypatch.context() as patch:
        patch.setattr(QuantizedModel, "calibrate", lambda *_: pytest.fail("work has begun"))
        with pytest.raises(TextError, match=f"{REFUSED}.*--allow-seen"):
            analyze(made, GPTQ, examined, str(seen_file))
    found = analyze(made, GPTQ, replace(examined, allow_seen=True, estimate=True), str(seen_file))
    assert found["text"]["held_out"] == "calibration saw 100 % of it"


def test_compare_refuses_a_row_before_it_is_quantized(
    model: LanguageModel, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "quantize_apart", lambda *_: pytest.fail("work has begun"))
    (row,) = compare(model, {("gptq", "int4-g32"): GPTQ}, Ruler(SEEN, 1500, source))
    assert row.measured is None and row.reason.startswith("calibration saw") and "--allow-seen" in row.reason
    assert "allow_seen" not in Ruler(SEEN).settings(model) and Ruler(SEEN, allow_seen=True).settings(model)["allow_seen"]


@pytest.fixture(params=["multiple choice", "classification", "discrimination", "writing"])
def task(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Questions that are pieces of the text, with right answers that are the pieces after them."""
    pieces, path = SEEN.split(), tmp_path / "task.jsonl"
    asked = [(" ".join(pieces[i : i + 16]), " ".join(pieces[i + 16 : i + 22])) for i in range(0, 384, 48)]
    lines: dict[str, Callable[[str, str, int], dict[str, Any]]] = {
        "multiple choice": lambda text, next, _: {"context": text, "choices": ["no", next], "answer": 1},
        "classification": lambda text, next, _: {"text": text, "label": next},
        "discrimination": lambda text, _, number: {"text": text, "label": number % 2, "positive": "yes", "negative": "no"},
        "writing": lambda text, next, _: {"prompt": text, "reference": next},
    }
    make = lines[request.param]
    path.write_text("".join(json.dumps(make(*pair, number)) + "\n" for number, pair in enumerate(asked)), "utf-8")
    return path


def test_tasks(task: Path, model: LanguageModel, saved: ArtifactModel, unsaved: QuantizedModel) -> None:
    asked, figure = read_task(task), file_task(task, model)
    for quantized in (saved, unsaved):
        with pytest.raises(TextError, match=f"{REFUSED}.*--allow-seen"):
            compare_task(asked, quantized, model)
        with pytest.raises(TextError, match=f"{REFUSED}; ask another task"):
            figure(quantized)
    assert compare_task(asked, saved, None, allow_seen=True).model.first.items == 8
    assert file_task(task, model, allow_seen=True)(saved).items == figure(model).items == 8
    plain = bitwright.quantize(model, NEAREST)
    assert figure(plain).items == compare_task(asked, plain, None).model.first.items == 8


def test_a_plan_is_not_proved_on_what_it_saw(model: LanguageModel, source: Source, tmp_path: Path) -> None:
    pytest.importorskip("scipy", exc_type=ImportError)
    settings = Settings(schemes=("int3-g32", "int4-g32"), activations=("int8",), calibration=source, threads=1)
    with pytest.raises(TextError, match=rf"{REFUSED}; verify on another one \(--text\)"):
        find_plan(model, Budget(max_size=200_000), replace(settings, held_out=SEEN))
    task = tmp_path / "task.jsonl"
    task.write_text("".join(json.dumps({"prompt": SEEN[i : i + 300], "reference": "a"}) + "\n" for i in (0, 500, 900)), "utf-8")
    with pytest.raises(TextError, match=rf"{REFUSED}; ask another task.*\(--calibration\)"):
        find_plan(model, Budget(max_task_drop=0.1), replace(settings, task=file_task(task, model)))
