"""Every `bitwright quantize` says how true its forecast was, of methods that look at no inputs, too; their size is exact."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.helpers import Command

KEYS = {"size_bytes", "seconds", "writing_seconds", "peak_rss_bytes"}


@pytest.mark.parametrize(
    "ways", [(), ("--transform", "fold", "--fitting", "hqq"), ("--prune", "2:4", "--scheme", "kmeans4-tensor")]
)
def test_without_inputs_the_size_is_exact(
    bitwright: Command, model_directory: Path, tmp_path: Path, ways: tuple[str, ...]
) -> None:
    options = ("quantize", model_directory, "-o", tmp_path / "out", *ways)
    expected = bitwright(*options, "--dry-run", "--json").json["forecast"]
    assert not (tmp_path / "out").exists()
    done = bitwright(*options, "--json").json
    assert set(done["forecast"]) == KEYS and done["forecast"]["seconds"] > 0 and done["forecast"]["peak_rss_bytes"] > 0
    assert expected["size_bytes"] == done["forecast"]["size_bytes"] == done["size_bytes"]
    assert done["size_bytes"] == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())


def test_with_text_the_size_is_near(bitwright: Command, model_directory: Path, tmp_path: Path) -> None:
    """All but the marks of the text, about eight bytes for 32 tokens, is known."""
    pytest.importorskip("torch", exc_type=ImportError)
    options = ("--method", "gptq", "--calibration-tokens", 2048)
    done = bitwright("quantize", model_directory, "-o", tmp_path / "out", *options, "--json").json
    assert set(done["forecast"]) == KEYS and abs(done["forecast"]["size_bytes"] - done["size_bytes"]) < 300


def test_foretold_and_true_are_said(bitwright: Command, model_directory: Path, tmp_path: Path) -> None:
    wrote, foretold = bitwright("quantize", model_directory, "-o", tmp_path / "out").err.splitlines()
    assert wrote.startswith("wrote ") and foretold.startswith("forecast: 0.1 MB, ")
    for line in (wrote, foretold):
        assert " 0.1 MB, " in line and " s, " in line and "MB of memory at most" in line


def test_a_forecast_reads_no_text(
    bitwright: Command, model_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it look for edits that a transform finds in it."""
    pytest.importorskip("torch", exc_type=ImportError)
    options = ("quantize", model_directory, "-o", tmp_path / "out", "--transform", "awq", "--calibration-tokens", 512)
    with monkeypatch.context() as patch:
        patch.setattr("bitwright.calibration.text.Source.tokens", lambda *_: pytest.fail("text was read"))
        foretold = bitwright(*options, "--dry-run", "--json").json["forecast"]
    done = bitwright(*options, "--json").json
    assert done["forecast"]["size_bytes"] == foretold["size_bytes"] and abs(foretold["size_bytes"] - done["size_bytes"]) < 300
