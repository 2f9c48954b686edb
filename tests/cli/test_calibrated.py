"""`bitwright quantize --method gptq` from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", exc_type=ImportError)

from cli.helpers import Command

CHOICES = [
    ("--scheme", "int4-g32", "--no-rotate"),
    ("--scheme", "int4-g32-srow5", "--fitting", "hessian"),
    ("--scheme", "int3-g32", "--guidance"),
]


@pytest.mark.parametrize("choice", CHOICES, ids=" ".join)
def test_gptq_from_end_to_end(
    bitwright: Command, model_directory: Path, text_file: Path, tmp_path: Path, choice: tuple[str, ...]
) -> None:
    options = ("-o", tmp_path / "out", "--method", "gptq", *choice, "--calibration-tokens", 300)
    dry = bitwright("quantize", model_directory, *options, "--dry-run", "--json")
    assert dry.code == 0 and not (tmp_path / "out").exists()
    done = bitwright("quantize", model_directory, *options, "--json")
    assert done.code == 0, done.err
    assert (
        set(done.json["forecast"]) == set(dry.json["forecast"]) == {"size_bytes", "seconds", "writing_seconds", "peak_rss_bytes"}
    )
    measured = bitwright("eval", tmp_path / "out", "--reference", model_directory, "--text", text_file, "--json")
    assert measured.code == 0 and 0 < measured.json["kl_mean"] < 1
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_guidance_is_written_into_the_artifact_and_taken_from_a_recipe(
    bitwright: Command, model_directory: Path, tmp_path: Path
) -> None:
    options = ("--method", "gptq", "--scheme", "int3-g32", "--guidance")
    few = ("--calibration-tokens", 300, "--json")
    assert bitwright("quantize", model_directory, "-o", tmp_path / "options", *options, *few).code == 0
    recipe = json.loads((tmp_path / "options" / "manifest.json").read_text("utf-8"))["recipe"]
    assert recipe["choices"][0]["guidance"] is True
    (tmp_path / "recipe.json").write_text(json.dumps(recipe), "utf-8")
    by_recipe = ("--recipe", tmp_path / "recipe.json")
    assert bitwright("quantize", model_directory, "-o", tmp_path / "recipe", *by_recipe, *few).code == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("options", "recipe")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--method", "nearest", "--guidance"), ("guidance needs a method that calibrates", "'nearest'", "choose from gptq")),
        (("--fitting", "hqq", "--guidance"), ("guidance needs a method that calibrates", "choose from gptq")),
        (("--recipe", "recipe.json", "--guidance"), ("--recipe already says what --guidance would", "leave one")),
    ],
)
def test_guidance_that_cannot_be_is_refused_in_one_line(
    bitwright: Command, model_directory: Path, tmp_path: Path, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refused = bitwright("quantize", model_directory, "-o", tmp_path / "out", *options)
    assert refused.code == 2 and len(refused.err.splitlines()) == 1 and not list(tmp_path.iterdir())
    assert all(word in refused.err for word in words)


def test_text_that_was_seen_is_refused(bitwright: Command, model_directory: Path, tmp_path: Path) -> None:
    text_file = tmp_path / "numbers.txt"
    text_file.write_text(" ".join(str(n**3) for n in range(500)), "utf-8")
    options = ("-o", tmp_path / "out", "--method", "gptq", "--calibration", text_file, "--calibration-tokens", 512)
    assert bitwright("quantize", model_directory, *options).code == 0
    refused = bitwright("eval", tmp_path / "out", "--text", text_file)
    assert refused.code == 2 and len(refused.err.splitlines()) == 1 and "--allow-seen" in refused.err
    assert bitwright("eval", tmp_path / "out", "--text", text_file, "--allow-seen").code == 0
