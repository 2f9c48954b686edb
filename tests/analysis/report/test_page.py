"""The page: one file without a way out, whole without any of its parts, and harmless whatever tensors are called."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from analysis.report.example import ATTACKS, example, hostile
from bitwright.analysis.report import page as page_module
from bitwright.analysis.report import render, write
from bitwright.analysis.report.document import parse
from bitwright.analysis.report.sections import sections
from bitwright.analysis.report.sentences import map_
from bitwright.errors import OutputError, ReportError

LEAST = {"kind": "plan", "verdict": "It fits in 80 MB.", "model": {"name": "m"}}
PARTS = {
    "budget": {"budget"},
    "frontier": {"frontier"},
    "tensors": {"map", "worst", "predicted", "tensors"},
    "fixes": {"worst"},
    "cumulative": {"cumulative"},
    "token_kinds": {"tokens"},
    "predicted": {"predicted"},
    "estimate": {"predicted"},
    "roofline": {"roofline"},
    "energy": {"roofline"},
    "histograms": set(),
    "whole": set(),
    "text": set(),
    "warnings": set(),
    "additivity": set(),
}


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the megabytes of plotly, which most of these tests have no use for."""
    monkeypatch.setattr(page_module, "library", lambda: "const Plotly = null;")


def embedded(page: str, name: str) -> Any:
    (found,) = re.findall(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.DOTALL)
    return json.loads(found)


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("part", PARTS)
def test_each_part_makes_its_section_and_no_part_is_needed(part: str) -> None:
    document = LEAST | {part: example(2)[part]}
    found = re.findall(r'<section id="([a-z]+)"', render(document))
    assert set(found) == PARTS[part] == {section.anchor for section in sections(parse(document))}


@pytest.mark.usefixtures("light")
def test_the_verdict_comes_first() -> None:
    page = render(example(2) | {"verdict": "Half the size & the same answers."})
    body = page[page.index("<main") :]
    texts = [text for text in re.split(r"\s*<[^>]*>\s*", body) if text]
    assert texts[:2] == ["Analysis of example-135m", "Half the size &amp; the same answers."]


@pytest.mark.usefixtures("light")
def test_its_foot_says_how_the_model_ran() -> None:
    body = html.unescape(render(example(2)))
    assert "<dt>activations</dt><dd>int16</dd>" in body and "<dt>KV cache</dt><dd>fp16</dd>" in body


@pytest.mark.usefixtures("light")
def test_nothing_is_fetched() -> None:
    page = render(example(2))
    assert re.findall(r'(?:src|href)="([^"#][^"]*)"', page) == ["data:,"]
    assert not re.search(r"@import|url\(|\bfetch\(|XMLHttpRequest|https?://", page)
    assert "default-src 'none'" in page


def test_only_the_pages_own_scripts_may_run() -> None:
    pytest.importorskip("plotly", exc_type=ImportError)
    page = render(example(2))
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts}
    assert len(scripts) == 2 and len(scripts[0]) > 10**6
    assert set(re.findall(r"'sha256-([^']+)'", html.unescape(page[: page.index("<style>")]))) == hashes and "\r" not in page


@pytest.mark.usefixtures("light")
def test_attacks_are_texts() -> None:
    page, calm = render(hostile()), render(example(2))
    for tag in ("<script", "</script", "<img", "<svg", "<!--"):
        assert page.count(tag) == calm.count(tag), tag
    assert "{{ 7*7 }} {% raw %}" in page  # no template to the template
    names = {tensor["name"] for tensor in embedded(page, "data")["tensors"]}
    assert all(any(attack in name for name in names) for attack in ATTACKS[:5])
    assert embedded(page, "document")["tensors"][0]["name"] in names


@pytest.mark.usefixtures("light")
def test_every_tensor_has_a_row_and_details() -> None:
    given = example(2)
    page = render(given)
    rows = re.findall(r'<tr data-tensor="(\d+)"', page)
    assert sorted(map(int, rows)) == list(range(len(given["tensors"])))
    costs = [given["tensors"][int(row)]["kl_alone"] for row in rows]
    assert costs == sorted(costs, reverse=True)
    first = embedded(page, "data")["tensors"][0]
    facts = dict(first["facts"])
    assert first["name"] == given["tensors"][0]["name"] and facts["shape"] == "576 × 576" and facts["why"]
    assert first["histograms"]["weights"]["data"] and "levels from" in first["histograms"]["said"]


def test_how_many_tensors_make_half_of_the_loss() -> None:
    tensors = [
        {"name": str(cost), "layer": 0, "kind": str(cost), "scheme": "int4-g64", "bits": 4.25, "bytes": 1, "kl_alone": cost}
        for cost in (1.0, 4.0, 3.0, 2.0)
    ]
    said = map_(parse(LEAST | {"tensors": tensors}))
    assert said.startswith("2 of 4 tensors make half of the loss, 4.0 of block 0 alone makes 40.0\u00a0%.")


def test_without_plotly_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ReportError, match=r"need plotly; pip install 'bitwright\[report\]'"):
        write(LEAST, tmp_path / "report.html", tmp_path / "report.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("light")
def test_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    given = hostile()
    given["tensors"][0]["sqnr_db"] = float("inf")
    write(given, tmp_path / "report.html", tmp_path / "report.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]
    assert (tmp_path / "report.html").read_text("utf-8").rstrip().endswith("</html>")
    saved = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert saved["tensors"][0]["sqnr_db"] is None and saved["whole"] == given["whole"]
    before = (tmp_path / "report.html").read_bytes()
    with pytest.raises(ReportError):
        write({"kind": "plan"}, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_bytes() == before
    with pytest.raises(OutputError, match="there is no folder"):
        write(LEAST, tmp_path / "none" / "report.html")
    with pytest.raises(OutputError, match="is a folder"):
        write(LEAST, tmp_path)


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_stand_out_from_what_they_lie_on(theme: str) -> None:
    style = (resources.files("bitwright.analysis.report") / "style.css").read_text("utf-8")
    pairs = re.findall(r"--([a-z0-9-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", style)
    colours = {name: luminance(light if theme == "light" else dark) for name, light, dark in pairs}
    for text in ("ink", "soft", "quiet", "accent", "good", "bad"):
        for ground in ("page", "raised"):
            low, high = sorted((colours[text], colours[ground]))
            assert (high + 0.05) / (low + 0.05) >= 4.5, f"{text} on {ground}"  # WCAG 2.2, level AA
