"""Rows of text: which column is the text, and the rows of JSON lines.

The text is in the column `text`, or else in the only one that holds strings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bitwright.errors import TextError

COLUMN = "text"
SHOWN = 12  # columns in a message
CURE = f"give plain text, or rows whose text is in a column {COLUMN!r}"


def text_column(columns: Sequence[str], strings: Sequence[str], path: Path) -> str:
    """Which of the `columns`, of which `strings` hold strings, is the text. Raises `TextError` naming them."""
    candidates = [COLUMN] if COLUMN in columns else strings
    if len(candidates) != 1 or columns.count(candidates[0]) != 1:
        names = ", ".join(repr(name[:40]) for name in columns[:SHOWN]) + (", ..." if len(columns) > SHOWN else "")
        raise TextError(f"{path} has not one column {COLUMN!r}, nor one alone that holds strings, but {names or 'none'}; {CURE}")
    return candidates[0]


def json_rows(lines: str, path: Path) -> Iterator[str]:
    """The text of a file with one JSON object a line, without nulls. Raises `TextError` naming the line."""
    column = ""
    for number, line in enumerate(lines.split("\n"), 1):  # not splitlines: a JSON string may hold what else parts lines
        if not line.strip():
            continue
        row = _object(line)
        if not column and row:
            column = text_column(list(row), [name for name, value in row.items() if isinstance(value, str)], path)
        value = row.get(column, 0)
        if isinstance(value, str):
            yield value
        elif value is not None:
            raise TextError(f"line {number} of {path} is no JSON object with a string {column or COLUMN!r}; {CURE}")


def _object(line: str) -> dict[str, Any]:
    """Empty where the line holds none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}
