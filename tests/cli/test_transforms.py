"""`bitwright quantize --transform`."""

from __future__ import annotations

from pathlib import Path

from bitwright.artifact import open_artifact
from cli.helpers import Command


def test_the_command_line_takes_several(bitwright: Command, model_directory: Path, tmp_path: Path) -> None:
    options = ("--scheme", "int4-g32", "--transform", "fold,rotate-heads", "--transform", "equalize")
    outcome = bitwright("quantize", model_directory, "-o", tmp_path / "out", *options, "--json")
    assert outcome.code == 0, outcome.err
    recipe = open_artifact(tmp_path / "out").manifest.recipe
    assert recipe is not None and recipe["transforms"] == ["fold", "rotate-heads", "equalize"]
    assert "rotate" not in recipe["choices"][0]
    outcome = bitwright("quantize", model_directory, "-o", tmp_path / "b", "--transform", "magic")
    assert outcome.code == 2 and "unknown transform 'magic'" in outcome.err
