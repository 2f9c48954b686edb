"""Models on disk, and the command line as a function."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from bitwright.cli import main
from cli.helpers import Command, Outcome, tensors, write_model


@pytest.fixture
def bitwright(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Command:
    """bitwright("eval", path, ..., stdin="...") -> what `bitwright eval PATH ...` ends with and prints."""
    monkeypatch.setenv("BITWRIGHT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))

    def command(*arguments: object, stdin: str = "") -> Outcome:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return command


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be read only."""
    return write_model(tmp_path_factory.mktemp("models") / "model", tensors())


@pytest.fixture(scope="session")
def artifact(model_directory: Path) -> Path:
    """The same model at int4-g64, to be read only."""
    out = model_directory.parent / "artifact"
    assert main(["quantize", str(model_directory), "-o", str(out), "--scheme", "int4-g64"]) == 0
    return out


@pytest.fixture(scope="session")
def text_file(model_directory: Path) -> Path:
    path = model_directory.parent / "text.txt"
    path.write_text("A model reads words and guesses the next one, and the next one after that. " * 30, "utf-8")
    return path
