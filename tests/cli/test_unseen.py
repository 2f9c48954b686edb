"""What was calibrated on a text is refused it by every command that measures, with an option that the command has."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", exc_type=ImportError)

from bitwright import _native
from bitwright.analysis.analyze import Examined
from bitwright.analysis.documents import Made
from bitwright.core import Recipe
from bitwright.errors import TextError
from cli.helpers import Command

SCHEME, TOKENS = ("--scheme", "int4-g32"), ("--tokens", 600)


@pytest.fixture
def seen(tmp_path: Path) -> Path:
    random, path = np.random.default_rng(1), tmp_path / "seen.txt"
    path.write_text(" ".join("".join(random.choice(list("abcdefgh"), 4)) for _ in range(300)), "utf-8")
    return path


@pytest.fixture
def ways(bitwright: Command, model_directory: Path, seen: Path, tmp_path: Path) -> dict[str, tuple[object, ...]]:
    """Commands that measure on the text; the artifact, and what they make themselves, is calibrated on it."""
    task, out, text = tmp_path / "task.jsonl", tmp_path / "out", seen.read_text("utf-8")
    task.write_text("".join(json.dumps({"prompt": text[i : i + 200], "reference": "a"}) + "\n" for i in (0, 300, 600)), "utf-8")
    both = ("--calibration", seen, "--text", seen)
    assert bitwright("quantize", model_directory, "-o", out, "--method", "gptq", *SCHEME, *both[:2]).code == 0
    return {
        "eval": ("eval", out, "--text", seen, *TOKENS),
        "eval --task": ("eval", out, "--task", task),
        "compare": ("compare", model_directory, "--methods", "gptq", "--schemes", "int4-g32", *both, *TOKENS),
    }


@pytest.mark.parametrize("name", ["eval", "eval --task", "compare"])
def test_seen_text_is_refused_unless_told(
    bitwright: Command, ways: dict[str, tuple[object, ...]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(_native, "fastest_threads", lambda: 1)
    refused, allowed = bitwright(*ways[name]), bitwright(*ways[name], "--allow-seen")
    assert "calibration saw" in refused.err and "--allow-seen" in refused.err
    assert refused.code == (0 if name == "compare" else 2)  # there the row alone is not possible
    assert allowed.code == 0 and "calibration saw" not in allowed.err, allowed.err
    assert refused.out.count("not possible") == (name == "compare") and "not possible" not in allowed.out


def test_a_task_is_refused_before_the_text_is_measured(
    bitwright: Command, ways: dict[str, tuple[object, ...]], text_file: Path
) -> None:
    refused = bitwright(*ways["eval --task"], "--text", text_file, "--json")
    assert refused.code == 2 and refused.out == "" and refused.err.startswith("error: calibration saw")


def test_analyze_refuses_it_too_and_passes_the_option_on(
    bitwright: Command, model_directory: Path, seen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("analyze", model_directory, "--method", "gptq", *SCHEME, "--calibration", seen, "--text", seen, *TOKENS)
    refused = bitwright(*words)
    assert refused.code == 2 and refused.err.startswith("error: calibration saw") and "--allow-seen" in refused.err

    def examine(made: Made, recipe: Recipe, examined: Examined, *_: object) -> None:
        raise TextError(f"allow_seen is {examined.allow_seen}")

    monkeypatch.setattr("bitwright.analysis.analyze.analyze", examine)
    assert "allow_seen is True" in bitwright(*words, "--allow-seen").err and "is False" in bitwright(*words).err
