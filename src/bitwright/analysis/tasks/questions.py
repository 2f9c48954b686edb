"""Questions with choices, one a line:

    {"context": "The capital of France is", "choices": ["Paris", "Rome"], "answer": 0}
    {"question": "What is the capital of France?", "choices": ["Paris", "Rome"], "answer": 0}

A context is continued as it stands; a question is put as "Question: ...\\nAnswer:". `answer` counts choices from 0; other keys
are left alone. One blank stands between a context and a choice unless either brings its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bitwright.analysis.tasks.lines import SHOWN, Line, is_text

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


def questions_of(lines: Sequence[Line]) -> list[Question]:
    """Raises `TaskError` that names the line."""
    return [_question(line) for line in lines]


def _question(line: Line) -> Question:
    if ("context" in line.fields) == ("question" in line.fields):
        raise line.fault("it must have either a context or a question")
    asked = line.text("context" if "context" in line.fields else "question")
    choices, answer = line.fields.get("choices"), line.fields.get("answer")
    if not isinstance(choices, list) or not 2 <= len(choices) <= MOST_CHOICES:
        raise line.fault(f"choices must be a list of 2 to {MOST_CHOICES} texts")
    if not all(map(is_text, choices)):
        raise line.fault("every choice must be a text that is not empty, in valid Unicode")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        said = str(answer)[:SHOWN]
        raise line.fault(f"answer must be the number of the right choice, 0 to {len(choices) - 1}, not {said!r}")
    context = asked if "context" in line.fields else f"Question: {asked}\nAnswer:"
    return Question(context, tuple(choices), answer, line.number)
