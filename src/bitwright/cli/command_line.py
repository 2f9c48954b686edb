"""From a function's signature to a command: options, arguments, help and errors are read off it, none are written twice.

    def run(path: Annotated[str, Argument("PATH", help="...")], tokens: Annotated[int, Option("-n", "--tokens", help="...")] = 64)

A parameter's type says how its text is read: str, int, float, Path, a bool is a switch, a list may be given several times.
Written by hand because a command must show its first word within 0.4 s of the return key, and the parsers that read
signatures take a quarter of that to import.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from bitwright.errors import BitwrightError

KINDS = {str: "text", int: "a whole number", float: "a number", Path: "a path"}


class UsageError(BitwrightError):
    """A command line that cannot be understood. `command` is whose --help explains it."""

    def __init__(self, message: str, command: str) -> None:
        super().__init__(f"{message}; see {command} --help")


@dataclass(frozen=True)
class Argument:
    """A parameter that is given by its place."""

    metavar: str
    help: str


class Option:
    """A parameter that is given by one of its names; `least` bounds a number from below, `alone` is its text where none follows.

    A switch with a second name for off is written --loud/--no-loud.
    """

    def __init__(self, *names: str, help: str, least: int | None = None, alone: str | None = None) -> None:
        self.names = tuple(part for name in names for part in name.split("/"))
        self.off = tuple(name.partition("/")[2] for name in names if "/" in name)
        self.help, self.least, self.alone = help, least, alone


@dataclass(frozen=True)
class Parameter:
    """One parameter of a command. `default` is `inspect.Parameter.empty` where it must be given."""

    name: str
    kind: type
    declared: Argument | Option
    default: Any
    several: bool

    @property
    def opts(self) -> tuple[str, ...]:
        """-n and --tokens; none for an argument."""
        return self.declared.names if isinstance(self.declared, Option) else ()

    @property
    def help(self) -> str:
        return self.declared.help

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    @property
    def shown(self) -> str:
        """What errors and help call it."""
        return " / ".join(self.opts) if isinstance(self.declared, Option) else self.declared.metavar

    def read(self, text: str, command: str) -> Any:
        """Raises `UsageError`."""
        try:
            value = self.kind(text)
        except ValueError as fault:
            raise UsageError(f"{self.shown} must be {KINDS[self.kind]}, not {text!r}", command) from fault
        if isinstance(self.declared, Option) and self.declared.least is not None and value < self.declared.least:
            raise UsageError(f"{self.shown} must be at least {self.declared.least}, not {text}", command)
        return value


def parameters(function: Callable[..., object]) -> tuple[Parameter, ...]:
    """In the order of the signature."""
    hints = get_type_hints(function, include_extras=True)
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        hint, declared = get_args(hints[name])
        if isinstance(hint, types.UnionType):  # int | None
            hint = get_args(hint)[0]
        several = get_origin(hint) is list
        found.append(Parameter(name, get_args(hint)[0] if several else hint, declared, parameter.default, several))
    return tuple(found)


def parse(function: Callable[..., object], words: Sequence[str], command: str) -> dict[str, Any]:
    """Values by parameter name, those that were not given left out. Raises `UsageError`."""
    known = parameters(function)
    by_option = {option: parameter for parameter in known for option in parameter.opts}
    places = [parameter for parameter in known if not parameter.opts]
    values: dict[str, Any] = {}
    rest, placed = list(words), []
    while rest:
        word = rest.pop(0)
        if word == "--":
            placed += rest
            break
        if not word.startswith("-") or word == "-":
            placed.append(word)
            continue
        option, attached = _split(word)
        parameter = by_option.get(option)
        if parameter is None or (parameter.kind is bool and attached is not None):
            raise UsageError(f"No such option: {word}", command)
        if parameter.kind is bool:
            assert isinstance(parameter.declared, Option)
            values[parameter.name] = option not in parameter.declared.off
            continue
        value = parameter.read(_following(parameter, rest, command) if attached is None else attached, command)
        values[parameter.name] = [*values.get(parameter.name, []), value] if parameter.several else value
    if len(placed) > len(places):
        raise UsageError(f"One argument too many: {placed[len(places)]}", command)
    values |= {place.name: place.read(word, command) for place, word in zip(places, placed, strict=False)}
    missing = [parameter.shown for parameter in known if parameter.required and parameter.name not in values]
    if missing:
        raise UsageError(f"{missing[0]} is missing", command)
    return values


def _following(parameter: Parameter, rest: list[str], command: str) -> str:
    """The word after an option, taken from `rest`; or what the option means alone. Raises `UsageError`."""
    assert isinstance(parameter.declared, Option)
    alone = parameter.declared.alone
    if alone is not None and (not rest or (rest[0].startswith("-") and rest[0] != "-")):
        return alone
    if not rest:
        raise UsageError(f"{parameter.shown} needs a value", command)
    return rest.pop(0)


def _split(word: str) -> tuple[str, str | None]:
    """--tokens=3 -> (--tokens, 3), -n3 -> (-n, 3), --json -> (--json, None)"""
    if word.startswith("--"):
        option, equals, value = word.partition("=")
        return option, value if equals else None
    return word[:2], word[2:] or None
