"""Rows of a comparison against what quantizing and evaluating by hand gives."""

from __future__ import annotations

from pathlib import Path

import pytest

import bitwright
import bitwright.analysis.compare as core
from bitwright.analysis.compare import Ruler, compare
from bitwright.analysis.own_process import Cost
from bitwright.calibration.self_written import missing_tokens
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


def nearest(*schemes: str) -> dict[tuple[str, str], Recipe]:
    return {("nearest", scheme): Recipe.uniform(scheme) for scheme in schemes}


def test_a_row_is_what_quantize_and_evaluate_say(model: LanguageModel, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    recipes = {
        ("hqq", "int4-g64"): Recipe.uniform("int4-g64", fitting="hqq"),
        ("fold+nearest", "int8-channel"): Recipe.uniform("int8-channel", transforms=["fold"]),
    }
    rows = list(compare(model, recipes, Ruler(TEXT, 300), lambda *step: steps.append(step)))
    assert [(row.method, row.scheme) for row in rows] == list(recipes) and not any(row.reason for row in rows)
    for row in rows:
        saved = bitwright.quantize(model, recipes[row.method, row.scheme]).save(tmp_path / "artifact")
        expected = bitwright.evaluate(saved, model, TEXT, context=128, tokens=300).to_dict()
        found = row.to_dict()
        for key in ("size_bytes", "bits_per_weight", "kl_mean", "kl_mean_interval", "perplexity", "top1_agreement"):
            assert found[key] == expected[key], key
        assert found["seconds"] > 0 and found["peak_rss_bytes"] > 0
    assert [step[1:] for step in steps] == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_a_combination_that_cannot_be_is_a_row(model: LanguageModel) -> None:
    rows = list(compare(model, nearest("int4-g48", "int8-channel"), Ruler(TEXT, 64)))
    assert rows[0].measured is None and "group 48 does not divide a row of 64" in rows[0].reason
    assert set(rows[0].to_dict()) == {"method", "scheme", "reason"}
    assert rows[1].measured is not None and not rows[1].reason


def quantize_here(path: Path, recipe: Recipe, source: Source, output: Path) -> Cost:
    """As `quantize_apart` does, but torch need not be loaded once more."""
    bitwright.quantize(bitwright.load(path), recipe, source).save(output)
    return Cost(1.0, 1)


def test_methods_differ_and_calibrate_on_what_they_are_told(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", exc_type=ImportError)
    monkeypatch.setattr(core, "quantize_apart", quantize_here)
    (tmp_path / "numbers.txt").write_text(" ".join(str(n**3) for n in range(300)), "utf-8")
    source = Source(str(tmp_path / "numbers.txt"), 2, 64)
    gptq = {("awq+gptq", "int3-g64"): Recipe.uniform("int3-g64", "gptq", transforms=["awq"])}
    plain, calibrated = compare(model, nearest("int3-g64") | gptq, Ruler(TEXT, 128, source))
    assert plain.measured is not None and calibrated.measured is not None
    assert plain.measured.size_bytes < calibrated.measured.size_bytes  # by what the manifest says of the calibration text
    assert plain.measured.kl_mean != calibrated.measured.kl_mean
    (seen,) = compare(model, gptq, Ruler(Path(source.place), 128, source))
    assert seen.measured is None and "calibration saw" in seen.reason


def test_no_row_pays_for_text_that_all_read(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", exc_type=ImportError)
    unwritten = []

    def killed(path: Path, recipe: Recipe, source: Source, output: Path) -> Cost:
        unwritten.append(missing_tokens(model, (source.windows, source.length), source.seed))
        raise MemoryError

    monkeypatch.setattr(core, "quantize_apart", killed)
    recipes = {("awq", "int4-g64"): Recipe.uniform("int4-g64", transforms=["awq"])}
    (row,) = compare(model, recipes, Ruler(TEXT, 64, Source("self", 2, 16)))
    assert unwritten == [0] and row.measured is None and row.reason == "MemoryError"


def test_a_bad_text_is_refused_before_any_row(model: LanguageModel) -> None:
    for ruler in (Ruler(Path("nowhere.txt")), Ruler("", 64), Ruler(TEXT, 64, Source("nowhere.txt"))):
        with pytest.raises(TextError):
            ruler.settings(model)
