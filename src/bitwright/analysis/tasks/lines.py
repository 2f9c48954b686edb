"""The lines of a task's file: one JSON object each, blank lines apart. A fault names the line and what to write instead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitwright.artifact.strict_json import parse
from bitwright.errors import TaskError

LONGEST_LINE = 1 << 20
SHOWN = 40  # characters of what a user wrote, in an error


@dataclass(frozen=True)
class Line:
    """`number` counts the lines of the file from 1, blank ones, too."""

    path: str
    number: int
    fields: dict[str, Any]

    def fault(self, said: str) -> TaskError:
        return TaskError(f"{self.path}, line {self.number}: {said}")

    def text(self, key: str) -> str:
        """Raises `TaskError` unless it is a text, and not an empty one."""
        value = self.fields.get(key)
        if not is_text(value):
            raise self.fault(f"{key} must be a text that is not empty, in valid Unicode")
        return str(value)


def is_text(value: Any) -> bool:
    """Whether it is a string that a tokenizer takes and that is not all blanks. JSON may escape halves of a character."""
    return isinstance(value, str) and bool(value.strip()) and not any("\ud800" <= character <= "\udfff" for character in value)


def read_lines(path: str | Path) -> list[Line]:
    """All of a file; blank lines are left out. Raises `TaskError`."""
    try:
        with Path(path).open("rb") as file:
            return [Line(str(path), number, _fields(f"{path}, line {number}", line)) for number, line in _lines(file, path)]
    except OSError as fault:
        raise TaskError(f"cannot read the task {path}: {fault.strerror}; give a file of one JSON object a line") from fault


def _lines(file: Any, path: str | Path) -> Iterator[tuple[int, bytes]]:
    """No line is held that is longer than one may be."""
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise TaskError(f"{path}, line {number}: it is longer than {LONGEST_LINE} bytes; write one object a line")
        line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if line.strip():
            yield number, line


def _fields(place: str, line: bytes) -> dict[str, Any]:
    try:
        fields = parse(line)
    except ValueError as fault:  # no UTF-8 or no JSON
        raise TaskError(f"{place}: it is not JSON ({fault}); write one object a line") from fault
    if not isinstance(fields, dict):
        raise TaskError(f"{place}: it must be an object, such as {{...}}, with the keys of a task")
    return fields
