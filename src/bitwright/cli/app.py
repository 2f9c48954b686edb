"""The table of commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from bitwright import __version__
from bitwright.cli.bench import bench
from bitwright.cli.catalogue import formats, methods
from bitwright.cli.chat import chat
from bitwright.cli.demo import demo
from bitwright.cli.evaluate import evaluate
from bitwright.cli.inspect import inspect
from bitwright.cli.quantize import quantize
from bitwright.cli.run import run

COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "inspect": inspect,
    "quantize": quantize,
    "eval": evaluate,
    "run": run,
    "chat": chat,
    "bench": bench,
    "methods": methods,
    "formats": formats,
}

# Plain help and plain tracebacks: typer's rich versions take longer to import than everything else together.
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"bitwright {__version__}")
        raise typer.Exit


@app.callback()
def bitwright(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_show_version)] = False,
) -> None:
    """Make a language model smaller and faster, measure what it lost, and run it."""


for _name, _command in COMMANDS.items():
    app.command(_name)(_command)
