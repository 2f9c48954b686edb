"""`bitwright analyze --estimate`: what it prints and writes says that shares are estimated, and how well on how many tensors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", exc_type=ImportError)

from bitwright.analysis.report.document import parse
from cli.helpers import Command


def test_an_estimate(bitwright: Command, model_directory: Path, tmp_path: Path) -> None:
    text, data = tmp_path / "text.txt", tmp_path / "data.json"
    text.write_text("a quick brown fox jumps over the lazy dog, 12 times or 345. " * 60, "utf-8")
    options = ("--text", text, "--calibration", text, "--tokens", 600, "--probed", 256, "--scheme", "int4-g32")
    done = bitwright("analyze", model_directory, "--estimate", "--json", data, *options)
    assert done.code == 0, done.err
    found = parse(json.loads(data.read_text("utf-8")))
    assert found.shares == "estimated" and found.estimate is not None and found.estimate.tensors == 12
    assert (found.estimate.rank_correlation or 0) > 0.8 and (found.made_by or "").endswith("--estimate")
    assert found.whole is not None and (found.whole.kl_mean or 0) > 0 and (found.whole.kl_max or 0) > 0
    said = " ".join(done.out.split())
    assert "Shares are estimated: rank correlation with the measured losses of 12 tensors" in said
    assert "KL, estimated" in said and "KL alone" not in said and "regained" not in said
    assert "kB more, by estimate" in done.err and "one by one" not in done.err
