"""Rows of a comparison against what quantizing and evaluating by hand gives."""

from __future__ import annotations

from pathlib import Path

import pytest

import bitwright
from bitwright.analysis.compare import Ruler, compare
from bitwright.calibration.text import Source
from bitwright.core import Recipe
from bitwright.errors import TextError
from bitwright.models.base import LanguageModel
from handmade import make_handmade

TEXT = "A model reads words and guesses the next one, and 345 more after that. " * 12


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LanguageModel:
    monkeypatch.setenv("BITWRIGHT_CACHE", str(tmp_path / "cache"))
    return bitwright.load(make_handmade(tmp_path / "model", tied=True))


def test_a_row_is_what_quantize_and_evaluate_say(model: LanguageModel, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    pairs = [("nearest", "int4-g64"), ("nearest", "int8-channel")]
    rows = list(compare(model, pairs, Ruler(TEXT, 300), lambda *step: steps.append(step)))
    assert [(row.method, row.scheme) for row in rows] == pairs and not any(row.reason for row in rows)
    for row in rows:
        saved = bitwright.quantize(model, Recipe.uniform(row.scheme)).save(tmp_path / "artifact")
        expected = bitwright.evaluate(saved, model, TEXT, context=128, tokens=300).to_dict()
        found = row.to_dict()
        for key in ("size_bytes", "bits_per_weight", "kl_mean", "kl_mean_interval", "perplexity", "top1_agreement"):
            assert found[key] == expected[key], key
        assert found["seconds"] > 0 and found["peak_rss_bytes"] > 0
    assert [step[1:] for step in steps] == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_a_combination_that_cannot_be_is_a_row(model: LanguageModel) -> None:
    rows = list(compare(model, [("nearest", "int4-g48"), ("nearest", "int8-channel")], Ruler(TEXT, 64)))
    assert rows[0].measured is None and "group 48 does not divide a row of 64" in rows[0].reason
    assert set(rows[0].to_dict()) == {"method", "scheme", "reason"}
    assert rows[1].measured is not None and not rows[1].reason


def test_methods_differ_and_calibrate_on_what_they_are_told(model: LanguageModel, tmp_path: Path) -> None:
    pytest.importorskip("torch", exc_type=ImportError)
    (tmp_path / "numbers.txt").write_text(" ".join(str(n**3) for n in range(300)), "utf-8")
    source = Source(str(tmp_path / "numbers.txt"), 2, 64)
    nearest, gptq = compare(model, [("nearest", "int3-g64"), ("gptq", "int3-g64")], Ruler(TEXT, 128, source))
    assert nearest.measured is not None and gptq.measured is not None
    assert nearest.measured.size_bytes < gptq.measured.size_bytes  # by what the manifest says of the calibration text
    assert nearest.measured.kl_mean != gptq.measured.kl_mean
    (seen,) = compare(model, [("gptq", "int3-g64")], Ruler(Path(source.place), 128, source))
    assert seen.measured is None and "calibration saw" in seen.reason


def test_a_bad_text_is_refused_before_any_row(model: LanguageModel) -> None:
    for ruler in (Ruler(Path("nowhere.txt")), Ruler("", 64), Ruler(TEXT, 64, Source("nowhere.txt"))):
        with pytest.raises(TextError):
            ruler.settings(model)
