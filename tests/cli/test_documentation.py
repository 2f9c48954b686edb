"""Every command and option is documented, has help, and nothing is documented that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bitwright.cli import app as table
from bitwright.cli.command_line import parameters

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text("utf-8")
PUBLIC = ["demo", "inspect", "quantize", "eval", "compare", "plan", "analyze", "run", "chat", "bench", "methods", "formats"]


def section(command: str) -> str:
    """The part of the page under `## bitwright COMMAND`."""
    parts = re.split(r"^## bitwright ", PAGE, flags=re.MULTILINE)
    found = [part for part in parts[1:] if part.split()[0] == command]
    assert len(found) == 1, f"docs/cli.md needs one section '## bitwright {command}'"
    return found[0]


def options(command: str) -> set[str]:
    return {name for parameter in parameters(table.command(command)) for name in parameter.opts}


def test_the_commands_are_those_of_the_public_face() -> None:
    assert list(table.COMMANDS) == PUBLIC


@pytest.mark.parametrize("command", PUBLIC)
def test_every_option_is_documented(command: str) -> None:
    written = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", section(command)))
    assert options(command) <= written
    documented_here = set(re.findall(r"^- `(--?[a-z][a-z-]*)", section(command), flags=re.MULTILINE))
    assert documented_here <= options(command)


@pytest.mark.parametrize("command", PUBLIC)
def test_every_command_and_parameter_has_help(command: str) -> None:
    assert (table.command(command).__doc__ or "").strip()
    for parameter in parameters(table.command(command)):
        assert parameter.help, f"{command}: {parameter.name}"


@pytest.mark.parametrize("command", PUBLIC)
def test_the_first_line_of_help_is_not_cut(command: str) -> None:
    assert len((table.command(command).__doc__ or "").strip().partition("\n")[0]) <= 66
