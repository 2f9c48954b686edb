"""Puts the tables of results/ into the README, between <!-- NAME --> and <!-- /NAME -->. A test holds the two together.

python benchmarks/readme.py
"""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"


def with_results(text: str, results: Path) -> str:
    """The README's text with every result there is in its place. A result without a place is an error."""
    for path in sorted(results.glob("*.md")):
        begin, end = f"<!-- {path.stem} -->", f"<!-- /{path.stem} -->"
        places = re.findall(rf"{begin}.*?{end}", text, flags=re.DOTALL)
        if len(places) != 1:
            raise SystemExit(f"README.md has {len(places)} places for results/{path.name}; write {begin}{end} once")
        text = text.replace(places[0], f"{begin}\n\n##{path.read_text('utf-8')}\n{end}")
    return text


if __name__ == "__main__":
    README.write_text(with_results(README.read_text("utf-8"), HERE / "results"), "utf-8")
