"""Budgets that cannot be are refused with one line that names the nearest, and a plan's file is a recipe."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

pytest.importorskip("torch", exc_type=ImportError)
pytest.importorskip("scipy", exc_type=ImportError)

from bitwright import _native
from bitwright.analysis.report.document import parse
from bitwright.core import Recipe
from cli.helpers import Command, Outcome

CANDIDATES = ("--schemes", "int3-g32,int4-g32,int8-channel", "--method", "nearest")


def assert_refused(outcome: Outcome, *words: str) -> None:
    """What was under way before may have said so; the fault is one line."""
    assert outcome.code == 2 and outcome.out == ""
    lines = outcome.err.strip().splitlines()
    assert [line.startswith("error: ") for line in lines].count(True) == 1 and lines[-1].startswith("error: "), outcome.err
    for word in words:
        assert word in lines[-1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ("needs a budget",)),
        (("--max-size", "80XB"), ("80XB", "write it like 80MB")),
        (("--max-ram", "lots"), ("lots", "write it like 80MB")),
        (("--max-drop", "half"), ("half", "0.5%")),
        (("--min-speed", "fast"), ("--min-speed", "fast", "plain number")),
        (("--max-kl", "-1"), ("--max-kl", "-1")),
        (("--max-size", "0"), ("--max-size", "above zero")),
        (("--max-size", "80MB", "--objective", "beauty"), ("beauty", "loss, size, speed, prefill, ram, energy")),
        (("--max-size", "80MB", "--objective", "ram"), ("--objective ram", "needs a limit on the loss", "--max-kl")),
        (("--max-size", "1kB", *CANDIDATES), ("nearest that can be met: --max-size",)),
        (("--max-ram", "1MB", *CANDIDATES), ("nearest that can be met: --max-ram",)),
        (("--max-energy", "1e-9", *CANDIDATES), ("nearest that can be met: --max-energy", "(an estimate)")),
        (("--max-size", "80MB", "--task", "gone.jsonl"), ("gone.jsonl",)),
        (("--max-task-drop", "1%", "--task", "TASK", "--estimate", *CANDIDATES), ("a limit on a task's drop",)),
        (("--max-task-drop", "1%", *CANDIDATES), ("a limit on a task's drop needs the task (--task FILE)",)),
        (("--max-task-drop", "much", "--task", "TASK"), ("much", "0.5%")),
    ],
)
def test_no_budget(
    bitwright: Command, model_directory: Path, tmp_path: Path, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    task = tmp_path / "task.jsonl"
    task.write_text(json.dumps({"context": "a", "choices": ["b", "c"], "answer": 0}) + "\n", "utf-8")
    given = [str(task) if option == "TASK" else option for option in options]
    assert_refused(bitwright("plan", model_directory, "-o", tmp_path / "recipe.json", *given), *words)
    assert not (tmp_path / "recipe.json").exists()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("plan.json", "plan.html"), ("the data of --report would be written over -o", "plan.json")),
        (("plan.html", "plan.html"), ("--report would be written over -o",)),
        (("recipe.json", "plan.json"), ("the data of --report would be written over --report",)),
        (("text.txt", "plan.html"), ("-o would be written over --text", "text.txt")),
        (("recipe.json", "text.html"), ("text.json is a folder",)),
        (("recipe.json", "gone/plan.html"), ("there is no folder", "gone")),
        (("recipe.json", "."), ("is a folder",)),
    ],
)
def test_nothing_is_written_over_another_file(
    bitwright: Command, tmp_path: Path, names: tuple[str, str], words: tuple[str, ...]
) -> None:
    """Refused before the model is looked for."""
    text = tmp_path / "text.txt"
    text.write_text("mine", "utf-8")
    (tmp_path / "text.json").mkdir()
    recipe, page = (tmp_path / name for name in names)
    outcome = bitwright("plan", "gone/model", "--max-kl", "1", "-o", recipe, "--report", page, "--text", text)
    assert_refused(outcome, *words)
    assert text.read_text("utf-8") == "mine" and sorted(path.name for path in tmp_path.iterdir()) == ["text.json", "text.txt"]


@pytest.fixture(scope="module")
def on_text(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """Options for a plan that is made and measured in a moment: two windows of a text, one thread, one kind of activations."""
    text = tmp_path_factory.mktemp("texts") / "text.txt"
    text.write_text("a quick brown fox jumps over the lazy dog " * 60, "utf-8")
    quick = ("--threads", 1, "--activations", "int8", "--context", 64, "--swaps", 0)
    return (*CANDIDATES, "--calibration", text, "--text", text, *quick)


def test_a_plan_with_its_page(bitwright: Command, model_directory: Path, tmp_path: Path, on_text: tuple[object, ...]) -> None:
    pytest.importorskip("plotly")
    recipe, page = tmp_path / "r.json", tmp_path / "p.html"
    limits = ("--max-size", "1MB", "--max-energy", "0.5", "--max-drop", "50%", "--objective", "loss")
    done = bitwright("plan", model_directory, "-o", recipe, "--report", page, *limits, *on_text)
    assert done.code == 0, done.err
    assert "perplexity" in done.err and "mJ (estimate) a token" in done.err and f"wrote {recipe} and {page}" in done.err
    found = Recipe.load(recipe)
    assert {str(choice.scheme) for choice in found.choices} <= {"int3-g32", "int4-g32", "int8-channel"}
    assert all(choice.reason.startswith("KL ") for choice in found.choices)
    said = json.loads(recipe.read_text("utf-8"))["plan"]
    assert said["energy_source"] == "estimate" and said["budget"]["max_energy"] == 0.5
    html = page.read_text("utf-8")
    assert html.startswith("<!doctype html>") and html.rstrip().endswith("</html>")
    document = parse(json.loads((tmp_path / "p.json").read_text("utf-8")))
    assert document.kind == "plan" and document.verdict in html.replace("<wbr>", "")
    assert {tensor.name for tensor in document.tensors} == {choice.pattern for choice in found.choices}
    limits_shown = {limit.quantity: limit for limit in document.budget}
    assert limits_shown["max-size"].met and limits_shown["max-size"].reached == said["measured"]["bytes"]
    assert limits_shown["max-energy"].met and document.energy is not None and document.energy.how == "estimate"


def test_a_plan_for_a_task(bitwright: Command, model_directory: Path, tmp_path: Path, on_text: tuple[object, ...]) -> None:
    task, recipe = tmp_path / "task.jsonl", tmp_path / "r.json"
    lines = [{"context": "a quick brown", "choices": [" fox", " dog", " lazy"], "answer": number % 3} for number in range(6)]
    task.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    limits = ("--max-task-drop", "50%", "--max-drop", "40%")  # of the task's figure, and of perplexity
    done = bitwright("plan", model_directory, "-o", recipe, "--task", task, *limits, *on_text, "--json")
    assert done.code == 0, done.err
    assert done.json["task_drop"] <= 0.5 and done.json["budget"] == {"max_drop": 0.4, "max_task_drop": 0.5}
    assert done.json["perplexity"] <= 1.4 * done.json["perplexity_reference"]
    written = json.loads(recipe.read_text("utf-8"))["plan"]["task"]
    assert written["drop"] == done.json["task_drop"] and written["score_reference"] == pytest.approx(1 / 3)
    assert done.json["energy_source"] == "estimate" and done.json["path"] == str(recipe)
    measured = done.json["measured"]
    assert done.json["perplexity_reference"] == pytest.approx(math.exp(measured["loss_reference"]))
    assert done.json["perplexity"] / done.json["perplexity_reference"] == pytest.approx(math.exp(measured["loss_added"]))


def test_a_plan_for_a_task_whose_figure_is_better_lower(
    bitwright: Command, model_directory: Path, tmp_path: Path, on_text: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_native, "fastest_threads", lambda: 1)
    task, recipe = tmp_path / "task.jsonl", tmp_path / "r.json"
    task.write_text(json.dumps({"prompt": "a quick brown", "reference": "fox jumps over the lazy dog"}) + "\n", "utf-8")
    done = bitwright("plan", model_directory, "-o", recipe, "--task", task, "--max-task-drop", "900%", *on_text)
    assert done.code == 0, done.err
    found = json.loads(recipe.read_text("utf-8"))["plan"]["task"]
    assert found["measure"] == "word error rate" and found["drop"] == found["score"] - found["score_reference"]
    assert f"the task's word error rate grows by {found['drop']:.3g}" in done.err


def test_limits_in_conflict(bitwright: Command, model_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITWRIGHT_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text.txt"
    text.write_text("a quick brown fox jumps over the lazy dog " * 400, "utf-8")
    options = (*CANDIDATES, "--estimate", "--calibration", text)
    place = tmp_path / "recipe.json"
    done = bitwright("plan", model_directory, "-o", place, "--objective", "loss", *options, "--json")
    assert done.code == 0, done.err
    largest = done.json["size_bytes"]
    assert json.loads(place.read_text("utf-8"))["choices"]
    limit = f"{round(0.8 * largest)}"
    refused = bitwright("plan", model_directory, "-o", tmp_path / "no.json", "--max-size", limit, "--max-kl", "1e-7", *options)
    assert_refused(refused, "nearest that can be met:", "--max-size", "--max-kl")
    assert not (tmp_path / "no.json").exists()
