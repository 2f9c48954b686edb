"""Words of a command line to the parameters of a function."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest

from bitwright.cli.command_line import Argument, Option, UsageError, parse
from bitwright.cli.help_text import of_command


def verb(  # noqa: PLR0913 - one parameter an option
    path: Annotated[str, Argument("PATH", help="Where.")],
    output: Annotated[Path, Option("-o", "--output", help="Where to.")],
    count: Annotated[int, Option("-n", "--count", help="How many.", least=1)] = 3,
    ratio: Annotated[float | None, Option("--ratio", help="How much.")] = None,
    word: Annotated[list[str] | None, Option("--word", help="Which.")] = None,
    loud: Annotated[bool, Option("--loud", help="Whether.")] = False,
    turn: Annotated[bool | None, Option("--turn/--no-turn", help="Which way.")] = None,
    log: Annotated[Path | None, Option("--log", help="Where too.", alone="-")] = None,
) -> None:
    """Do it.

    At once.
    """


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("a -o b", {"path": "a", "output": Path("b")}),
        ("-ob -n5 a", {"path": "a", "output": Path("b"), "count": 5}),
        ("--output=b --count=5 --loud a", {"path": "a", "output": Path("b"), "count": 5, "loud": True}),
        ("a -o b --turn", {"path": "a", "output": Path("b"), "turn": True}),
        ("a -o b --no-turn", {"path": "a", "output": Path("b"), "turn": False}),
        ("a -o b --ratio -0.5", {"path": "a", "output": Path("b"), "ratio": -0.5}),
        ("a -o b --word= --word x=y", {"path": "a", "output": Path("b"), "word": ["", "x=y"]}),
        ("-o b -- -a", {"path": "-a", "output": Path("b")}),
        ("-o - -", {"path": "-", "output": Path("-")}),
        ("a -o b --log c", {"path": "a", "output": Path("b"), "log": Path("c")}),
        ("a -o b --log", {"path": "a", "output": Path("b"), "log": Path("-")}),
        ("a --log -o b", {"path": "a", "output": Path("b"), "log": Path("-")}),
        ("a --log - -o b", {"path": "a", "output": Path("b"), "log": Path("-")}),
        ("a -o b --log=c", {"path": "a", "output": Path("b"), "log": Path("c")}),
    ],
)
def test_words_find_their_parameters(line: str, values: dict[str, object]) -> None:
    assert parse(verb, line.split(), "bitwright verb") == values


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("a", "-o / --output is missing"),
        ("-o b", "PATH is missing"),
        ("a c -o b", "One argument too many: c"),
        ("a -o", "-o / --output needs a value"),
        ("a -o b --cuont 3", "No such option: --cuont"),
        ("a -o b --loud=yes", "No such option: --loud=yes"),
        ("a -o b -n x", "-n / --count must be a whole number, not 'x'"),
        ("a -o b -n 0", "-n / --count must be at least 1, not 0"),
        ("a -o b --ratio x", "--ratio must be a number, not 'x'"),
    ],
)
def test_what_is_wrong_is_named(line: str, fault: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(verb, line.split(), "bitwright verb")
    assert str(raised.value) == f"{fault}; see bitwright verb --help"


def test_help_says_all_of_it() -> None:
    text = of_command("bitwright verb", verb)
    assert text.startswith("Usage: bitwright verb [OPTIONS] PATH\n\n  Do it.\n\n  At once.\n")
    for line in (
        "PATH  Where.",
        "-o, --output PATH  Where to.  [required]",
        "-n, --count N      How many.  [default: 3]",
        "--loud             Whether.",
        "--turn, --no-turn  Which way.",
        "--log [PATH]       Where too.",
        "--help ",
    ):
        assert line in text
