"""Puts the tables of results/ into the README, between <!-- NAME --> and <!-- /NAME -->. A test holds the two together.

    python benchmarks/readme.py

Of results longer than LONGEST lines it shows the first table, and how many bars are met; a link leads to the rest.
"""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
LONGEST = 50  # lines of one result
BAR = re.compile(r"^- .*\(bar: .*\): (met|\*\*not met\*\*)$", re.MULTILINE)  # as results.verdict writes it


def with_results(text: str, results: Path) -> str:
    """The README's text with every result there is in its place. A result without a place is an error."""
    for path in sorted(results.glob("*.md")):
        begin, end = f"<!-- {path.stem} -->", f"<!-- /{path.stem} -->"
        places = re.findall(rf"{begin}.*?{end}", text, flags=re.DOTALL)
        if len(places) != 1:
            raise SystemExit(f"README.md has {len(places)} places for results/{path.name}; write {begin}{end} once")
        text = text.replace(places[0], f"{begin}\n\n##{shown(path)}\n{end}")
    return text


def shown(path: Path) -> str:
    """Of the Markdown in results/ what the README has."""
    text = path.read_text("utf-8")
    if text.count("\n") <= LONGEST:
        return text
    parts = text.split("\n\n")
    table = next(index for index, part in enumerate(parts) if part.startswith("|"))
    verdicts, link = BAR.findall(text), f"[benchmarks/results/{path.name}](benchmarks/results/{path.name})"
    bars = f"Of {len(verdicts)} bars {verdicts.count('met')} are met: all of them, and what they were judged by, are in {link}."
    return "\n\n".join([*parts[: table + 1], bars]) + "\n"


if __name__ == "__main__":
    README.write_text(with_results(README.read_text("utf-8"), HERE / "results"), "utf-8")
