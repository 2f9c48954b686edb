"""`bitwright analyze`: the page and the data that it writes, and what it prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", exc_type=ImportError)

from analysis.report.example import example
from bitwright.analysis.report.document import Document, parse
from cli.helpers import Command, tensors

LAYERS, KINDS = 2, {"q", "k", "v", "o", "gate", "up", "down", "embedding+head"}
SHORT = ("--tokens", 600, "--probed", 256, "--scheme", "int4-g32")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("a quick brown fox jumps over the lazy dog, 12 times or 345. " * 60, "utf-8")
    return path


def read(path: Path) -> Document:
    return parse(json.loads(path.read_text("utf-8")))


def test_a_page_and_its_data(bitwright: Command, model_directory: Path, tmp_path: Path, text: Path) -> None:
    pytest.importorskip("plotly")
    page = tmp_path / "page.html"
    options = ("--text", text, "--calibration", text, *SHORT)
    done = bitwright("analyze", model_directory, "-o", page, *options)
    assert done.code == 0, done.err
    html = page.read_text("utf-8")
    assert html.startswith("<!doctype html>") and html.rstrip().endswith("</html>")
    found = read(tmp_path / "page.json")
    assert found.kind == "analysis" and found.verdict in html.replace("<wbr>", "")
    assert found.verdict in " ".join(done.out.split())
    matrices = {name for name, weights in tensors().items() if weights.ndim == 2}
    assert {tensor.name for tensor in found.tensors} == matrices and {kind.kind for kind in found.kinds} == KINDS
    assert {(tensor.kind == "embedding+head", tensor.scheme) for tensor in found.tensors} == {
        (True, "int8-channel"),  # what a head gets unless told otherwise
        (False, "int4-g32"),
    }
    assert [step.block for step in found.cumulative] == list(range(LAYERS))
    assert found.whole is not None and found.whole.kl_mean is not None and found.whole.kl_mean > 0
    assert found.additivity is not None and found.additivity.together > 0
    assert found.text is not None and found.text.name == "text.txt" and found.text.context == 256
    assert {(fix.from_scheme, fix.to_scheme) for fix in found.fixes} == {("int4-g32", "int5-g64")}
    assert max(fix.kl_before - fix.kl_after for fix in found.fixes) > 0


def test_a_text_too_short_is_refused(bitwright: Command, model_directory: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("a quick brown fox", "utf-8")
    done = bitwright("analyze", model_directory, "-o", tmp_path / "page.html", "--text", short)
    assert done.code == 2 and "256 tokens at least; give a longer text" in done.err and done.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["short.txt"]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.json"
    runtime = [{"activations": "int16"}, {"kv_cache": "int4", "from_context": 8}]
    path.write_text(json.dumps({"choices": [{"pattern": "*", "scheme": "int4-g32"}], "runtime": runtime}), "utf-8")
    return path


def test_a_recipe_is_measured_as_it_runs(
    bitwright: Command, model_directory: Path, tmp_path: Path, text: Path, recipe: Path
) -> None:
    """With its activations and the cache that it comes to: as `eval` measures the artifact that it makes."""
    words = ("--text", text, "--tokens", 600)
    found = bitwright("analyze", model_directory, "--recipe", recipe, "--estimate", *words, "--probed", 256, "--json").json
    assert (found["activations"], found["kv_cache"]) == ("int16", "int4")
    out = tmp_path / "out"
    assert bitwright("quantize", model_directory, "-o", out, "--recipe", recipe).code == 0
    evaluated = ("eval", out, "--reference", model_directory, *words, "--context", 256, "--json", "--kv-cache")
    assert found["whole"]["kl_mean"] == pytest.approx(bitwright(*evaluated, "int4").json["kl_mean"], rel=1e-9)
    assert found["whole"]["kl_mean"] != pytest.approx(bitwright(*evaluated, "fp16").json["kl_mean"], rel=1e-3)


def test_the_data_go_where_they_are_asked_for(
    bitwright: Command, model_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitwright.analysis.analyze.analyze", lambda *_: example(2))
    data, page = tmp_path / "data.json", tmp_path / "page.html"
    done = bitwright("analyze", model_directory, "--json", data)
    assert done.code == 0 and read(data).verdict in " ".join(done.out.split()) and f"wrote {data}\n" in done.err
    written = json.loads(data.read_text("utf-8"))
    for words in (("--json",), ("--json", "-"), ("--json", "--scheme", "int4-g64")):
        assert bitwright("analyze", model_directory, *words).json == written
    assert [path.name for path in tmp_path.iterdir()] == ["data.json"]
    data.unlink()
    pytest.importorskip("plotly")
    for words, files in ((("--json",), ["page.html", "page.json"]), (("--json", data), ["data.json", "page.html", "page.json"])):
        assert bitwright("analyze", model_directory, "-o", page, *words).code == 0
        assert sorted(path.name for path in tmp_path.iterdir()) == files


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--json", "recipe.json"), "--json would be written over --recipe"),
        (("-o", "recipe.html"), "the data of -o would be written over --recipe"),
        (("-o", "page.json"), "the data of -o would be written over -o"),
        (("-o", "page.html", "--json", "text.txt"), "--json would be written over --text"),
    ],
)
def test_nothing_is_written_over_another_file(
    bitwright: Command, tmp_path: Path, text: Path, recipe: Path, options: tuple[str, ...], words: str
) -> None:
    """Refused before the model is looked for."""
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    given = [option if option.startswith("-") else tmp_path / option for option in options]
    done = bitwright("analyze", "gone/model", "--recipe", recipe, "--text", text, *given)
    assert done.code == 2 and done.err.count("\n") == 1 and words in done.err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
