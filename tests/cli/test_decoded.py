"""What the engine decodes to fp32 is told by all that make, load or measure a model, or refused; `formats` says it beforehand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bitwright.engine import fallback
from cli.helpers import Command

SCHEME = ("--scheme", "nvfp4", "--fitting", "minmax")
TOLD = "14 matrices of nvfp4: no integer kernel"
CURE = "quantize to what `bitwright formats` holds as codes, look-up or bytes"
RUN = {
    "run": ("Hi", "--raw", "-n", "1"),
    "chat": ("-n", "1"),
    "bench": ("--prompt=8", "--generate=2", "--threads=1", "--repeats=1"),
}


@pytest.fixture(autouse=True)
def untold() -> Iterator[None]:
    """What was told before is told again."""
    fallback._warn.cache_clear()
    yield


@pytest.fixture(scope="module")
def decoded(model_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact whose layers no integer kernel takes."""
    from bitwright.cli import main

    out = tmp_path_factory.mktemp("decoded") / "nvfp4"
    assert main(["quantize", str(model_directory), "-o", str(out), *SCHEME]) == 0
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


@pytest.mark.parametrize("verb", RUN)
def test_loading_tells_it_or_refuses(
    bitwright: Command, artifact: Path, decoded: Path, caplog: pytest.LogCaptureFixture, verb: str
) -> None:
    assert bitwright(verb, artifact, *RUN[verb], "--strict").code == 0 and not caplog.messages
    assert bitwright(verb, decoded, *RUN[verb]).code == 0
    (line,) = caplog.messages
    assert line.startswith(TOLD) and CURE in line
    refused = bitwright(verb, decoded, *RUN[verb], "--strict")
    assert refused.code == 2 and refused.out == "" and TOLD in refused.err and "or leave out strict" in refused.err


def test_it_is_one_line_on_stderr(decoded: Path) -> None:
    command = [sys.executable, "-m", "bitwright", "run", str(decoded), "Hi", "--raw", "-n", "1"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stderr.startswith(TOLD) and found.stderr.count("\n") == 1


def test_measuring_tells_it(
    bitwright: Command, decoded: Path, model_directory: Path, text_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ways = [
        ("eval", decoded, "--text", text_file, "--tokens", 40),
        ("compare", model_directory, "--schemes", "nvfp4", "--methods", "minmax", "--text", text_file, "--tokens", 40),
    ]
    for way in ways:
        assert bitwright(*way).code == 0 and [TOLD in line for line in caplog.messages] == [True]
        caplog.clear()
        fallback._warn.cache_clear()
    assert bitwright(*ways[0], "--activations", "fp32").code == 0 and not caplog.messages  # floats are what was asked for


def test_quantizing_tells_it_or_refuses_before_any_work(
    bitwright: Command, model_directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = bitwright("quantize", model_directory, "-o", tmp_path / "out", *SCHEME, "--json")
    assert told.code == 0 and [TOLD in line for line in caplog.messages] == [True]
    assert {finding["kind"] for finding in told.json["findings"]} == {"decoded"} and len(told.json["findings"]) == 14
    monkeypatch.setattr("bitwright.quantization.QuantizedModel.forecast", lambda *_: pytest.fail("work has begun"))
    refused = bitwright("quantize", model_directory, "-o", tmp_path / "none", *SCHEME, "--strict", "--json")
    assert refused.code == 1 and TOLD in refused.err and not (tmp_path / "none").exists()
    assert refused.json["findings"] == told.json["findings"]
