"""Where figures go: a Markdown table for readers and the JSON it was made from, both naming the machine."""

from __future__ import annotations

import json
import os
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bitwright import _native
from bitwright.analysis.ceilings import machine

RESULTS = Path(__file__).resolve().parent / "results"

Row = Sequence[str | float | int]


def circumstances() -> dict[str, Any]:
    """Machine, and how busy it was before the measuring began."""
    return machine(_native.isa()) | {"load_average": round(os.getloadavg()[0], 2)}


def command_line() -> str:
    """What was run, options and all, for a reader to run again."""
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def percent(fraction: float | None) -> str:
    """Whole ones; nothing for what was not measured."""
    return "" if fraction is None else f"{100 * fraction:.0f} %"


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Of figures that were measured in turns, one of each a round: the median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def table(header: Sequence[str], rows: Sequence[Row]) -> str:
    """Markdown, numbers aligned to the right."""
    texts = [[_text(cell) for cell in row] for row in rows]
    sides = ["---:" if isinstance(cell, int | float) else "---" for cell in rows[0]]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, sides, *texts)) + "\n"


def verdict(name: str, value: float, bar: float, at_least: bool = False) -> str:
    """One line: the bar and whether it is met."""
    met = value >= bar if at_least else value <= bar
    return f"- {name}: {_text(value)} (bar: at {'least' if at_least else 'most'} {_text(bar)}): {'met' if met else '**not met**'}"


def write(name: str, title: str, data: dict[str, Any], parts: Sequence[str]) -> None:
    """results/NAME.md and results/NAME.json; the Markdown is printed too."""
    where = data["circumstances"]
    heading = (
        f"# {title}\n\n{where['cpu']}, {where['cores']} cores, {where['system']}, {where['isa']}; "
        f"load average {where['load_average']} before the run. Made by `{data['command']}`.\n"
    )
    text = heading + "\n" + "\n".join(parts)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text.rstrip() + "\n", "utf-8")
    (RESULTS / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n", "utf-8")
    print(text)


def _text(cell: str | float | int) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
