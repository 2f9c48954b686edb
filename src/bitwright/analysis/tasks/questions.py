"""Questions with choices, from a file of one JSON object a line:

    {"context": "The capital of France is", "choices": ["Paris", "Rome"], "answer": 0}
    {"question": "What is the capital of France?", "choices": ["Paris", "Rome"], "answer": 0}

A context is continued as it stands; a question is put as "Question: ...\\nAnswer:". `answer` counts choices from 0; other keys
are left alone. One blank stands between a context and a choice unless either brings its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitwright.artifact.strict_json import parse
from bitwright.errors import TaskError

LONGEST_LINE = 1 << 20
MOST_CHOICES = 100


@dataclass(frozen=True)
class Question:
    """`continuations` are the choices with the blank that goes before them; `line` says where it stands in its file."""

    context: str
    choices: tuple[str, ...]
    answer: int
    line: int

    @property
    def continuations(self) -> list[str]:
        blank = "" if not self.context or self.context[-1].isspace() else " "
        return [choice if choice[0].isspace() else blank + choice for choice in self.choices]


def read_questions(path: str | Path) -> list[Question]:
    """All of a file, blank lines apart. Raises `TaskError` that names the line."""
    try:
        with Path(path).open("rb") as file:
            questions = [_question(f"{path}, line {number}", number, line) for number, line in _lines(file, path) if line.strip()]
    except OSError as fault:
        raise TaskError(f"cannot read the task {path}: {fault.strerror}; give a file of one JSON object a line") from fault
    if not questions:
        raise TaskError(f"{path} holds no questions; write one JSON object a line, with context, choices and answer")
    return questions


def _lines(file: Any, path: str | Path) -> Iterator[tuple[int, bytes]]:
    """No line is held that is longer than one may be."""
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise TaskError(f"{path}, line {number} is longer than {LONGEST_LINE} bytes; write one question a line")
        yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def _question(place: str, number: int, line: bytes) -> Question:
    try:
        fields = parse(line)
    except ValueError as fault:  # no UTF-8 or no JSON
        raise TaskError(f"{place} is not JSON ({fault}); write one object a line") from fault
    if not isinstance(fields, dict) or ("context" in fields) == ("question" in fields):
        raise TaskError(f"{place} must be an object with either a context or a question")
    asked = fields["context"] if "context" in fields else fields["question"]
    if not isinstance(asked, str) or not asked.strip():
        raise TaskError(f"{place}: the context or question must be a text that is not empty")
    choices, answer = fields.get("choices"), fields.get("answer")
    if not isinstance(choices, list) or not 2 <= len(choices) <= MOST_CHOICES:
        raise TaskError(f"{place}: choices must be a list of 2 to {MOST_CHOICES} texts")
    if not all(isinstance(choice, str) and choice.strip() for choice in choices):
        raise TaskError(f"{place}: every choice must be a text that is not empty")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise TaskError(
            f"{place}: answer must be the number of the right choice, 0 to {len(choices) - 1}, not {str(answer)[:40]!r}"
        )
    context = asked if "context" in fields else f"Question: {asked}\nAnswer:"
    return Question(context, tuple(choices), answer, number)
