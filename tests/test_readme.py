"""What the README says is so: its Python example runs, and every file and command it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bitwright.cli.app import COMMANDS
from bitwright.core import Scheme
from bitwright.fitting import FITTING
from bitwright.rounding import ROUNDING
from cli.helpers import tensors, write_model

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text("utf-8")


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = TEXT.split("## From Python")[1].split("\n\nThe command line")[0]
    code = "\n".join(line.removeprefix("    ") for line in block.splitlines())
    write_model(tmp_path / "path" / "to" / "model", tensors())
    (tmp_path / "some.txt").write_text("A text of some length. " * 40, "utf-8")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)
    assert {"quantized", "result", "engine"} <= set(names)


def test_every_link_leads_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_every_command_is_one() -> None:
    assert set(re.findall(r"^    bitwright (\w+)", TEXT, flags=re.MULTILINE)) <= set(COMMANDS)
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"(?:^    |`)make (\w+)", TEXT, flags=re.MULTILINE)) <= targets


def test_every_scheme_parses_and_every_method_is_listed() -> None:
    for spelling in set(re.findall(r"`((?:int|fixed)[0-9]-[a-z0-9-]+)`", TEXT)):
        Scheme.parse(spelling)
    for name in (*FITTING, *ROUNDING):
        assert f"`{name}`" in TEXT
