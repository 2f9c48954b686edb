"""What --help prints, for the program and for each command, from docstrings and signatures."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import get_terminal_size

from bitwright.cli.command_line import Option, Parameter, parameters

WIDEST = 100  # columns
PLACES = {int: " N", float: " X", Path: " PATH", str: " TEXT", bool: ""}


def overview(about: str, commands: Sequence[tuple[str, Callable[..., object]]]) -> str:
    """All commands, each with the first line of its docstring."""
    rows = [(name, inspect.cleandoc(function.__doc__ or "").partition("\n")[0]) for name, function in commands]
    flags = [("--version", "Print the version."), ("--help", "Show this message and exit.")]
    usage = "Usage: bitwright [OPTIONS] COMMAND [ARGS]..."
    return "\n".join([usage, "", f"  {about}", *_table("Options", flags), *_table("Commands", rows)]) + "\n"


def of_command(command: str, function: Callable[..., object]) -> str:
    """One command: its docstring, its arguments and its options."""
    known = parameters(function)
    places = [parameter for parameter in known if not parameter.opts]
    arguments = [(place.shown, place.help) for place in places]
    options = [(", ".join(option.opts) + _place(option), _described(option)) for option in known if option.opts]
    usage = " ".join([f"Usage: {command} [OPTIONS]", *(place.shown for place in places)])
    about = textwrap.indent(inspect.cleandoc(function.__doc__ or ""), "  ")
    options.append(("--help", "Show this message and exit."))
    return "\n".join([usage, "", about, *_table("Arguments", arguments), *_table("Options", options)]) + "\n"


def _place(option: Parameter) -> str:
    """What follows its name; in brackets where it may be left out."""
    place = PLACES[option.kind]
    return f" [{place.strip()}]" if isinstance(option.declared, Option) and option.declared.alone else place


def _described(option: Parameter) -> str:
    """Its help and its default."""
    if option.required:
        return f"{option.help}  [required]"
    return option.help if option.default is None or option.default is False else f"{option.help}  [default: {option.default}]"


def _table(title: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    """Two columns under a title, the right one wrapped."""
    if not rows:
        return []
    left = max(len(name) for name, _ in rows) + 4
    width = max(min(get_terminal_size().columns, WIDEST), left + 30)
    lines = ["", f"{title}:"]
    for name, description in rows:
        lines += textwrap.wrap(description, width, initial_indent=f"  {name}".ljust(left), subsequent_indent=" " * left)
    return lines
