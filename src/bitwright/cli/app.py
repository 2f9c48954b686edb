"""The table of commands. A command's module is imported when it runs, so that no command waits for another's imports."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from bitwright import __version__
from bitwright.cli.command_line import UsageError, parse

ABOUT = "Make a language model smaller and faster, measure what it lost, and run it."

# Name -> module and function, under bitwright.cli
COMMANDS = {
    "demo": "demo.demo",
    "inspect": "inspect.inspect",
    "quantize": "quantize.quantize",
    "eval": "evaluate.evaluate",
    "compare": "compare.compare",
    "plan": "plan.plan",
    "analyze": "analyze.analyze",
    "run": "run.run",
    "chat": "chat.chat",
    "bench": "bench.bench",
    "methods": "catalogue.methods",
    "formats": "catalogue.formats",
}


def command(name: str) -> Callable[..., None]:
    """The function behind a command. Raises `UsageError`."""
    if name not in COMMANDS:
        what = "No such option:" if name.startswith("-") else "No such command"
        raise UsageError(f"{what} {name}", "bitwright")
    module, _, function = COMMANDS[name].partition(".")
    found: Callable[..., None] = getattr(import_module(f"bitwright.cli.{module}"), function)
    return found


def dispatch(words: Sequence[str]) -> None:
    """Run one command line. Raises `UsageError`, and whatever the command raises."""
    if not words or words[0] == "--help":
        from bitwright.cli.help_text import overview

        sys.stdout.write(overview(ABOUT, [(name, command(name)) for name in COMMANDS]))
    elif words[0] == "--version":
        sys.stdout.write(f"bitwright {__version__}\n")
    else:
        function, title = command(words[0]), f"bitwright {words[0]}"
        asked = words[1 : words.index("--")] if "--" in words else words[1:]
        if "--help" in asked:
            from bitwright.cli.help_text import of_command

            sys.stdout.write(of_command(title, function))
        else:
            function(**parse(function, words[1:], title))
