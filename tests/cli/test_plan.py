"""Budgets that cannot be are refused with one line that names the nearest, and a plan's file is a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", exc_type=ImportError)
pytest.importorskip("scipy", exc_type=ImportError)

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
        (("--max-size", "80MB", "--objective", "beauty"), ("beauty", "loss, size, speed")),
        (("--max-size", "1kB", *CANDIDATES), ("nearest that can be met: --max-size",)),
        (("--max-size", "80MB", "--task", "gone.jsonl"), ("gone.jsonl",)),
        (("--max-drop", "1%", "--task", "TASK", "--estimate", *CANDIDATES), ("task",)),
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
