"""`bitwright plan` with several methods and all schemes: what it says, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", exc_type=ImportError)
pytest.importorskip("scipy", exc_type=ImportError)

from bitwright.analysis.report.document import parse
from bitwright.core import Recipe, Scheme
from cli.helpers import Command


@pytest.fixture
def quick(tmp_path: Path) -> tuple[object, ...]:
    """Options for an estimate on a short text."""
    text = tmp_path / "text.txt"
    text.write_text("a quick brown fox jumps over the lazy dog " * 400, "utf-8")
    return ("--estimate", "--calibration", text, "--objective", "loss")


def test_methods_are_shown_where_tensors_may_differ(
    bitwright: Command, model_directory: Path, tmp_path: Path, quick: tuple[object, ...]
) -> None:
    pytest.importorskip("plotly")
    recipe, page = tmp_path / "r.json", tmp_path / "p.html"
    methods = ("--schemes", "int4-g32,int8-channel", "--method", "hqq,nearest+no-rotate", "--max-size", "1MB")
    done = bitwright("plan", model_directory, "-o", recipe, "--report", page, *methods, *quick)
    assert done.code == 0, done.err
    ways = {(c.method, c.fitting, c.rotate) for c in Recipe.load(recipe).choices}
    assert ways <= {("nearest", "hqq", True), ("nearest", "mse", False)}
    assert " x int8-channel hqq" in done.out or " x int8-channel nearest+no-rotate" in done.out
    assert all(" by " in choice.reason for choice in Recipe.load(recipe).choices)
    shown = {tensor.method for tensor in parse(json.loads((tmp_path / "p.json").read_text("utf-8"))).tensors}
    assert shown and shown <= {"hqq", "nearest+no-rotate"}
    assert all(method in page.read_text("utf-8") for method in shown if method)


def test_one_method_is_not_shown(bitwright: Command, model_directory: Path, tmp_path: Path, quick: tuple[object, ...]) -> None:
    done = bitwright("plan", model_directory, "-o", tmp_path / "r.json", "--schemes", "int4-g32", "--method", "hqq", *quick)
    assert done.code == 0, done.err
    assert " x int4-g32" in done.out and "hqq" not in done.out and "no integer kernel" not in done.err


def test_all_schemes_says_how_many_are_left(
    bitwright: Command, model_directory: Path, tmp_path: Path, quick: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = tuple(map(Scheme.parse, ("pot4-g32", "int4-g32", "int8-channel")))
    monkeypatch.setattr("bitwright.analysis.plan_types.engine_schemes", lambda widths: few)
    done = bitwright("plan", model_directory, "-o", tmp_path / "r.json", "--schemes", "all", "--method", "nearest", *quick)
    assert done.code == 0, done.err
    assert "2 of 3 schemes are best for some tensor; the others were left out" in done.err


def test_what_the_engine_decodes_is_told(
    bitwright: Command, model_directory: Path, tmp_path: Path, quick: tuple[object, ...]
) -> None:
    options = ("--schemes", "int4-g32,nvfp4,fp8e4m3-g32", "--method", "nearest", *quick)
    done = bitwright("plan", model_directory, "-o", tmp_path / "r.json", *options)
    assert done.code == 0, done.err
    (line,) = [line for line in done.err.splitlines() if "no integer kernel" in line]
    assert line.startswith("nvfp4, fp8e4m3-g32: ") and "decodes them to fp32" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--method", "gptq,gptaq"), ("gptaq", "name it alone", "choose from nearest")),
        (("--method", "gptq,awq"), ("'awq'", "choose from nearest", "hqq")),
        (("--method", "gptq,"), ("''", "choose from nearest")),
        (("--method", "gptq+refine"), ("gptq and refine exclude each other",)),
        (("--method", "hessian"), ("needs a method that calibrates",)),
        (("--schemes", "all,int9-g64"), ("int9", "choose from")),
        (("--schemes", "nf4-g32", "--method", "adaround"), ("adaround", "nf4")),
    ],
)
def test_what_cannot_be_is_refused(
    bitwright: Command, model_directory: Path, tmp_path: Path, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refused = bitwright("plan", model_directory, "-o", tmp_path / "r.json", "--max-size", "80MB", *options)
    assert refused.code == 2 and refused.out == "" and not list(tmp_path.iterdir())
    (line,) = refused.err.strip().splitlines()
    assert line.startswith("error: ") and all(word in line for word in words), line
