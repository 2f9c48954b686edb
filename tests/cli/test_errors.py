"""Whatever the input is to blame for ends as one line that names the fault and the cure, exit code 2, and no output."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bitwright.errors import BitwrightError
from cli.helpers import Command, Outcome, tensors, write_model


def assert_refused(outcome: Outcome, *words: str) -> None:
    assert outcome.code == 2
    assert outcome.out == ""
    lines = [line for line in outcome.err.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("error: "), outcome.err
    for word in words:
        assert word in lines[0]


@pytest.fixture
def broken(tmp_path: Path) -> Callable[[str, float], Path]:
    """A model with one weight replaced."""

    def make(name: str, value: float) -> Path:
        weights = tensors()
        weights[name][0, 3] = value
        return write_model(tmp_path / "broken", weights)

    return make


@pytest.mark.parametrize("verb", ["inspect", "bench", "chat"])
def test_missing_model(bitwright: Command, verb: str) -> None:
    assert_refused(bitwright(verb, "gone/model/at/all"), "gone/model/at/all")


def test_missing_model_with_an_output(bitwright: Command, tmp_path: Path, text_file: Path) -> None:
    assert_refused(bitwright("quantize", "gone/model/at/all", "-o", tmp_path / "out"), "gone/model/at/all")
    assert_refused(bitwright("eval", "gone/model/at/all", "--text", text_file, "--json"), "gone/model/at/all")
    assert_refused(bitwright("run", "gone/model/at/all", "hello"), "gone/model/at/all")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["inspect", "quantize", "run"])
def test_truncated_safetensors(bitwright: Command, verb: str, tmp_path: Path) -> None:
    path = write_model(tmp_path / "short", tensors()) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    rest = {"inspect": [], "quantize": ["-o", tmp_path / "out"], "run": ["hello"]}[verb]
    assert_refused(bitwright(verb, path.parent, *rest), "model.safetensors")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--scheme", "int4-g48"], ["group 48 does not divide", "groups that do"]),
        (["--scheme", "int4-g0"], ["group size must be positive"]),
        (["--scheme", "int9-g64"], ["unknown format 'int9'", "choose from"]),
        (["--scheme", "nonsense"], ["cannot read scheme 'nonsense'", "int4-g64"]),
        (["--method", "magic"], ["magic", "nearest"]),
        (["--fitting", "magic"], ["magic", "mse"]),
        (["--head", "magic"], ["magic"]),
        (["--prune", "most"], ["cannot read pruning 'most'", "2:4"]),
        (["--prune", "2:4", "--rotate"], ["rotation would fill", "turn one of them off"]),
        (["--recipe", "gone.json"], ["gone.json"]),
        (["--calibration", "gone.txt"], ["gone.txt"]),
        (["--recipe", "gone.json", "--scheme", "int4-g64"], ["--recipe already says what --scheme would"]),
        (["--color", "red"], ["--color", "bitwright quantize --help"]),
    ],
)
def test_wrong_option_of_quantize(
    bitwright: Command, options: list[str], words: list[str], model_directory: Path, tmp_path: Path
) -> None:
    assert_refused(bitwright("quantize", model_directory, "-o", tmp_path / "out", *options), *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_in_weights(bitwright: Command, value: float, broken: Callable[[str, float], Path], tmp_path: Path) -> None:
    model = broken("model.layers.1.mlp.up_proj.weight", value)
    assert_refused(bitwright("quantize", model, "-o", tmp_path / "out"), "model.layers.1.mlp.up_proj.weight", "NaN or infinite")
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_zero_length_text(bitwright: Command, artifact: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.touch()
    assert_refused(bitwright("eval", artifact, "--text", empty), "0 token(s)")
    assert_refused(bitwright("eval", artifact, "--text", tmp_path / "gone.txt"), "gone.txt", "No such file")
    (tmp_path / "binary.txt").write_bytes(np.random.default_rng(0).bytes(100))
    assert_refused(bitwright("eval", artifact, "--text", tmp_path / "binary.txt"), "not UTF-8")


@pytest.mark.parametrize(
    ("options", "word"),
    [(["--context", "1"], "context of 1"), (["--tokens", "1"], "at least 2"), (["--activations", "int5"], "int5")],
)
def test_wrong_option_of_eval(bitwright: Command, artifact: Path, text_file: Path, options: list[str], word: str) -> None:
    assert_refused(bitwright("eval", artifact, "--text", text_file, *options), word)


@pytest.mark.parametrize("threads", ["", "0", "1,x", "-1"])
def test_wrong_threads_of_bench(bitwright: Command, artifact: Path, threads: str) -> None:
    assert_refused(bitwright("bench", artifact, f"--threads={threads}"), "thread counts", "1,2,4")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--temperature", "-1"], "temperature"),
        (["--top-p", "2"], "top_p"),
        (["--min-p", "-0.5"], "min_p"),
        (["--repetition-penalty", "0"], "repetition_penalty"),
        (["--overflow", "explode"], "overflow"),
        (["-n", "-4"], "max_tokens"),
        (["--context", "4"], "context"),
        (["--stop", ""], "stop"),
    ],
)
def test_wrong_option_of_run(bitwright: Command, artifact: Path, options: list[str], word: str) -> None:
    assert_refused(bitwright("run", artifact, "The quick brown fox jumps", *options), word)


def test_unwritable_output(bitwright: Command, model_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert_refused(bitwright("quantize", model_directory, "-o", tmp_path / "file"), "file")
    assert_refused(bitwright("quantize", model_directory, "-o", tmp_path / "gone" / "out"), "gone")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").write_text("mine")
    assert_refused(bitwright("quantize", model_directory, "-o", tmp_path / "other"), "other")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "other", "precious"]


def test_full_disk(bitwright: Command, model_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("bitwright.artifact.writer.SafetensorsWriter.write", full)
    assert_refused(bitwright("quantize", model_directory, "-o", tmp_path / "out"), "disk is full", "free some space")
    assert list(tmp_path.iterdir()) == []


def test_a_bare_system_fault_is_one_line_too(bitwright: Command, monkeypatch: pytest.MonkeyPatch, model_directory: Path) -> None:
    def denied(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr("bitwright.models.load", denied)
    assert_refused(bitwright("inspect", model_directory), "Permission denied", str(model_directory), "check the path")


def test_many_lines_become_one(bitwright: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> None:
        raise BitwrightError("first\nsecond")

    monkeypatch.setattr("bitwright.models.load", fail)
    assert_refused(bitwright("inspect", "x"), "first second")


@pytest.mark.parametrize(
    "arguments", [["magic"], ["eval"], ["eval", "x"], ["run", "x"], ["quantize", "x"], ["bench", "x", "--prompt", "y"]]
)
def test_usage(bitwright: Command, arguments: list[str]) -> None:
    assert_refused(bitwright(*arguments), "--help")


def test_a_config_that_lies(bitwright: Command, tmp_path: Path) -> None:
    directory = write_model(tmp_path / "liar", tensors())
    config = json.loads((directory / "config.json").read_text("utf-8"))
    (directory / "config.json").write_text(json.dumps(config | {"model_type": "unheard-of", "architectures": ["Unheard"]}))
    assert_refused(bitwright("inspect", directory), "nheard")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_with_its_code_and_no_traceback(sent: signal.Signals) -> None:
    script = (
        "import os, sys\nimport bitwright.models\nfrom bitwright.cli import main\n"
        f"bitwright.models.load = lambda path: os.kill(os.getpid(), {int(sent)})\n"
        "sys.argv[1:] = ['inspect', 'x']\nsys.exit(main())"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.returncode == 128 + sent
    assert "Traceback" not in found.stderr
