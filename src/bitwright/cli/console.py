"""How commands speak: results on stdout as a table or as one JSON object, progress and notes on stderr.

rich is imported on first use, not at start.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated, Any

from bitwright.cli.command_line import Option

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import ProgressColumn

Progress = Callable[[int, int], None]
Steps = Callable[[str, int, int], None]

Json = Annotated[bool, Option("--json", help="Print one JSON object on stdout and nothing else.")]
Strict = Annotated[bool, Option("--strict", help="Refuse a model with matrices that the engine decodes to fp32.")]
AllowSeen = Annotated[bool, Option("--allow-seen", help="Measure even on text that calibration saw.")]
Threads = Annotated[
    int | None, Option("--threads", least=1, help="Threads to compute with (default: the number that is fastest here).")
]

LEAST_WIDTH = 132  # columns that a table may take, even where the terminal has fewer: a wrapped line is better than a cut one
SECONDS_BETWEEN_LINES = 5.0  # of progress, when stderr is no terminal


def print_json(data: Mapping[str, Any]) -> None:
    """One object, readable by any JSON parser: NaN and infinity would not be."""
    sys.stdout.write(json.dumps(data, indent=2, allow_nan=False) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> None:
    """The first `words` columns read from the left, the figures in the others from the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=max(LEAST_WIDTH, get_terminal_size().columns))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for position, column in enumerate(columns):
        table.add_column(column, justify="left" if position < words else "right", no_wrap=position != words - 1)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(Text(title))
    console.print(table)


def note(message: str) -> None:
    """One line for the person watching."""
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


@contextmanager
def progress(description: str) -> Iterator[Progress]:
    """A callback (done, total) that shows a bar with the remaining time, or now and then a line where no terminal is."""
    if not sys.stderr.isatty():
        yield _Lines(description)
        return
    with _bars() as bars:
        task = bars.add_task(description, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


@contextmanager
def steps() -> Iterator[Steps]:
    """A callback (what begins now, steps done, steps in all) that shows them in one bar, or in one line each."""
    if not sys.stderr.isatty():
        yield _StepLines()
        return
    with _bars() as bars:
        task = bars.add_task("", total=None)
        yield lambda message, done, total: bars.update(task, description=message, completed=done, total=total)


@contextmanager
def timeline() -> Iterator[Callable[[str, float, float], None]]:
    """A callback (what is being done, seconds so far, seconds in all) for work whose end is known by its phases' forecasts."""
    if not sys.stderr.isatty():
        yield _TimeLines()
        return
    from rich.progress import BarColumn, TextColumn

    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}")
    with _bars(*columns) as bars:
        task = bars.add_task("", total=None, left="")

        def report(message: str, done: float, total: float) -> None:
            left = f"{done / max(total, 1e-9):.0%}, about {span(total - done)} left"
            bars.update(task, description=message, completed=done, total=total, left=left)

        yield report


def span(seconds: float) -> str:
    """42 s, or 3 min 20 s."""
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _bars(*columns: ProgressColumn) -> Bars:
    """Without columns: what is done, a bar, the share and the time that is left at the pace so far."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    usual = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    return Bars(*(columns or usual), console=Console(stderr=True), transient=True)


class _Lines:
    """Progress for a log: a line every few seconds, none for what is quick."""

    def __init__(self, description: str) -> None:
        self.description = description
        self.begin = self.last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.last < SECONDS_BETWEEN_LINES or done <= 0:
            return
        self.last = now
        left = (now - self.begin) * (total - done) / done
        note(f"{self.description}: {100 * done // total} %, {left:.0f} s left")


class _StepLines:
    """A line a step, with what is left at the pace so far."""

    def __init__(self) -> None:
        self.begin = time.monotonic()

    def __call__(self, message: str, done: int, total: int) -> None:
        left = (time.monotonic() - self.begin) * (total - done) / done if done else None
        note(f"[{done + 1}/{total}] {message}" + ("" if left is None else f", about {left:.0f} s left"))


class _TimeLines:
    """A line every few seconds, and one where another phase begins."""

    def __init__(self) -> None:
        self.last, self.message = -SECONDS_BETWEEN_LINES, ""

    def __call__(self, message: str, done: float, total: float) -> None:
        if message == self.message and done - self.last < SECONDS_BETWEEN_LINES:
            return
        self.last, self.message = done, message
        note(f"{message}: {done / max(total, 1e-9):.0%} of all, about {span(total - done)} left")


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
