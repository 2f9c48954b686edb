"""What the engine decodes to fp32 is told: by `formats` and `inspect` beforehand, by `run` and `bench` when they load a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.helpers import Command


@pytest.fixture
def decoded(bitwright: Command, model_directory: Path, tmp_path: Path) -> Path:
    """An artifact whose layers no integer kernel takes."""
    out = tmp_path / "nvfp4"
    assert bitwright("quantize", model_directory, "-o", out, "--scheme", "nvfp4", "--fitting", "minmax").code == 0
    return out


def test_formats_says_how_the_engine_holds_each(bitwright: Command) -> None:
    engine = {row["name"]: row["engine"] for row in bitwright("formats", "--json").json["formats"]}
    expected = {"int4": "codes", "any4": "look-up", "local4": "bytes", "pwl8": "fp32", "bf16": "bf16", "mxfp4": "look-up"}
    assert expected.items() <= engine.items() and engine["nvfp4"] == "fp32"
    assert "in the engine" in bitwright("formats").out


def test_inspect_says_it_of_each_tensor(bitwright: Command, artifact: Path, decoded: Path) -> None:
    for path, layers in ((artifact, "codes"), (decoded, "fp32")):
        engine = {row["name"]: row["engine"] for row in bitwright("inspect", path, "--json").json["tensors"]}
        assert {kind for name, kind in engine.items() if "_proj" in name} == {layers}
        assert engine["model.embed_tokens.weight"] == "codes" and engine["model.norm.weight"] == "fp32"
    assert "in the engine" in bitwright("inspect", decoded).out


@pytest.mark.parametrize(
    "arguments", [["run", "Hi", "--raw", "-n", "1"], ["bench", "--prompt=8", "--generate=2", "--threads=1", "--repeats=1"]]
)
def test_loading_says_what_is_decoded(bitwright: Command, artifact: Path, decoded: Path, arguments: list[str]) -> None:
    verb, *rest = arguments
    found = bitwright(verb, decoded, *rest)
    assert found.code == 0 and "14 matrices of nvfp4: no integer kernel" in found.err and "inspect" in found.err
    quiet = bitwright(verb, artifact, *rest)
    assert quiet.code == 0 and "integer kernel" not in quiet.err
