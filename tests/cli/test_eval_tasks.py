"""`bitwright eval --task` with each kind of file: its figure, the reference's, and by how much the model is worse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bitwright import _native
from cli.helpers import Command

PAIR = {"positive": "words", "negative": "fox"}
KINDS: dict[str, tuple[str, str, list[dict[str, Any]]]] = {
    "classification": (
        "task_accuracy",
        "top-1 accuracy",
        [{"text": "A model", "label": label} for label in ("words", "fox", "dog")],
    ),
    "discrimination": (
        "task_auc",
        "AUC",
        [{"text": text, "label": len(text) % 2} | PAIR for text in ("a", "Names", "12", "jump")],
    ),
    "writing": ("task_word_error_rate", "word error rate", [{"prompt": "A model reads", "reference": "words and guesses"}] * 2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_task(
    bitwright: Command, artifact: Path, model_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(_native, "fastest_threads", lambda: 1)
    key, name, lines = KINDS[kind]
    task = tmp_path / "task.jsonl"
    task.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    alone = bitwright("eval", artifact, "--task", task, "--json").json
    assert alone["task_kind"] == kind and alone["task_items"] == len(lines)
    assert alone[f"{key}_interval"][0] <= alone[key] <= alone[f"{key}_interval"][1] and alone["task_drop"] is None
    options = ("--reference", model_directory, "--task", task)
    found = bitwright("eval", artifact, *options, "--json").json
    lost = found[f"{key}_reference"] - found[key]
    assert set(found) == set(alone) and found["task_drop"] == (-lost if kind == "writing" else lost)
    assert (found["task_drop_p"] is None) == (kind != "classification")
    table = bitwright("eval", artifact, *options).out
    assert f"{len(lines)} lines of" in table and name in table and "worse by" in table


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ((KINDS["writing"][2][0], {"prompt": "a"}), "line 2: reference must be a text"),
        (
            (KINDS["classification"][2][0], KINDS["writing"][2][0]),
            "line 2: it is writing, line 1 classification; keep to one kind",
        ),
        ((KINDS["writing"][2][0] | {"prompt": "12 " * 600},), "line 1: the prompt and 64 tokens of an answer"),
    ],
)
def test_a_bad_file_is_refused_before_the_text_is_measured(
    bitwright: Command, artifact: Path, text_file: Path, tmp_path: Path, lines: tuple[dict[str, Any], ...], fault: str
) -> None:
    task = tmp_path / "task.jsonl"
    task.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    refused = bitwright("eval", artifact, "--text", text_file, "--task", task, "--json")
    assert refused.code == 2 and refused.out == "" and refused.err.count("\n") == 1
    assert refused.err.startswith("error: ") and fault in refused.err
