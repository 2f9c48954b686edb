"""Quantizing in a process of its own: the same artifact, faults of the same kind, and a peak that is of nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bitwright
from bitwright.analysis.memory import peak_rss_bytes
from bitwright.analysis.own_process import quantize_apart
from bitwright.calibration.text import Source
from bitwright.core import Recipe
from bitwright.errors import NonFiniteError, OutputError
from handmade import VOCABULARY, make_handmade

BALLAST = 300_000_000  # bytes
RECIPE = Recipe.uniform("int4-g64", fitting="hqq", rotate=False, transforms=["fold"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_handmade(tmp_path / "model", tied=True)


def files(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_the_same_artifact_and_a_peak_of_its_own(path: Path, tmp_path: Path) -> None:
    ballast = np.ones(BALLAST, np.uint8)
    cost = quantize_apart(path, RECIPE, Source(), tmp_path / "apart")
    assert 10_000_000 < cost.peak_rss_bytes < len(ballast) < peak_rss_bytes() and cost.seconds > 0
    bitwright.quantize(bitwright.load(path), RECIPE).save(tmp_path / "here")
    assert files(tmp_path / "apart") == files(tmp_path / "here")


def test_it_calibrates_on_what_it_is_told(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", exc_type=ImportError)
    (tmp_path / "numbers.txt").write_text(" ".join(str(n**3) for n in range(300)), "utf-8")
    source, recipe = Source(str(tmp_path / "numbers.txt"), 2, 64), Recipe.uniform("int4-g64", "gptq")
    quantize_apart(path, recipe, source, tmp_path / "apart")
    bitwright.quantize(bitwright.load(path), recipe, source).save(tmp_path / "here")
    assert files(tmp_path / "apart") == files(tmp_path / "here")


def test_faults_are_those_of_quantizing_here(path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    nan = np.full((VOCABULARY, 64), np.nan, np.float32)
    broken = make_handmade(tmp_path / "broken", tied=True, changed={"model.embed_tokens.weight": nan})
    with pytest.raises(NonFiniteError, match=r"model\.embed_tokens\.weight"):
        quantize_apart(broken, Recipe.uniform("int4-g64"), Source(), tmp_path / "out")
    with pytest.raises(OutputError, match="nowhere"):
        quantize_apart(path, Recipe.uniform("int4-g64"), Source(), tmp_path / "nowhere" / "out")
    assert capfd.readouterr() == ("", "") and not (tmp_path / "out").exists()


@pytest.mark.parametrize(("end", "fault"), [("kill -9 $$", MemoryError), ("exit 1", subprocess.CalledProcessError)])
def test_a_process_that_gives_no_answer(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, fault: type[Exception]
) -> None:
    interpreter = tmp_path / "python"
    interpreter.write_text(f"#!/bin/sh\n{end}\n", "utf-8")
    interpreter.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    with pytest.raises(fault):
        quantize_apart(path, RECIPE, Source(), tmp_path / "out")
