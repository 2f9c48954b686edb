"""`bitwright analyze`: the page and the data that it writes, and what it prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", exc_type=ImportError)

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
