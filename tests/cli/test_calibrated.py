"""`bitwright quantize --method gptq` from end to end."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", exc_type=ImportError)

from cli.helpers import Command

CHOICES = [("--scheme", "int4-g32", "--no-rotate"), ("--scheme", "int4-g32-srow5", "--fitting", "hessian")]


@pytest.mark.parametrize("choice", CHOICES, ids=" ".join)
def test_gptq_from_end_to_end(
    bitwright: Command, model_directory: Path, text_file: Path, tmp_path: Path, choice: tuple[str, ...]
) -> None:
    options = ("-o", tmp_path / "out", "--method", "gptq", *choice, "--calibration-tokens", 300)
    dry = bitwright("quantize", model_directory, *options, "--dry-run", "--json")
    assert dry.code == 0 and not (tmp_path / "out").exists()
    done = bitwright("quantize", model_directory, *options, "--json")
    assert done.code == 0, done.err
    assert (
        set(done.json["forecast"]) == set(dry.json["forecast"]) == {"size_bytes", "seconds", "writing_seconds", "peak_rss_bytes"}
    )
    measured = bitwright("eval", tmp_path / "out", "--reference", model_directory, "--text", text_file, "--json")
    assert measured.code == 0 and 0 < measured.json["kl_mean"] < 1
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_text_that_was_seen_is_refused(bitwright: Command, model_directory: Path, tmp_path: Path) -> None:
    text_file = tmp_path / "numbers.txt"
    text_file.write_text(" ".join(str(n**3) for n in range(500)), "utf-8")
    options = ("-o", tmp_path / "out", "--method", "gptq", "--calibration", text_file, "--calibration-tokens", 512)
    assert bitwright("quantize", model_directory, *options).code == 0
    refused = bitwright("eval", tmp_path / "out", "--text", text_file)
    assert refused.code == 2 and len(refused.err.splitlines()) == 1 and "--allow-seen" in refused.err
    assert bitwright("eval", tmp_path / "out", "--text", text_file, "--allow-seen").code == 0
