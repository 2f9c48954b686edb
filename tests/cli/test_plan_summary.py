"""What `bitwright plan` says of the finished plan's answers: in one line, and in its JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", exc_type=ImportError)
pytest.importorskip("scipy", exc_type=ImportError)

from bitwright.cli.plan import _answers
from cli.helpers import Command


def test_one_line() -> None:
    measured = {"divergence": 0.0412, "kl_p99": 0.391, "kl_max": 2.84, "top1_agreement": 0.913, "flips": 0.087}
    assert _answers(measured, (0.0388, 0.0437)) == (
        "KL 0.0412 (0.0388 to 0.0437) in the mean, p99 0.391, max 2.84 nats a token; "
        "top-1 agreement 91.3 %, 8.7 % flipped, on text that the plan never saw"
    )


def test_the_finished_plan(bitwright: Command, model_directory: Path, tmp_path: Path) -> None:
    text, place = tmp_path / "text.txt", tmp_path / "recipe.json"
    text.write_text("a quick brown fox jumps over the lazy dog " * 60, "utf-8")
    quick = ("--threads", 1, "--activations", "int8", "--context", 64, "--swaps", 0)
    made = ("--schemes", "int4-g32", "--method", "nearest", "--calibration", text, "--text", text)
    options = ("--max-size", "1MB", *made, *quick)
    done = bitwright("plan", model_directory, "-o", place, *options, "--json")
    assert done.code == 0, done.err
    told, written = done.json, json.loads(place.read_text("utf-8"))["plan"]
    for name in ("kl_p99", "kl_max", "top1_agreement", "flips"):
        assert told[name] == written["measured"][name]
    assert 0 < told["kl_mean"] <= told["kl_max"] and told["kl_p99"] <= told["kl_max"]
    assert told["flips"] == pytest.approx(1 - told["top1_agreement"])
    low, high = told["kl_mean_interval"]
    assert low <= told["kl_mean"] <= high and written["measured_divergence_interval"] == [low, high]
    estimated = bitwright("plan", model_directory, "-o", place, *options, "--estimate", "--json").json
    assert {estimated[name] for name in ("kl_mean", "kl_mean_interval", "kl_p99", "kl_max", "top1_agreement", "flips")} == {None}
