"""A task from a file of one JSON object a line; its keys say of which kind it is:

    context or question, choices, answer     multiple choice      accuracy, by log-likelihood     multiple_choice.py
    text, label                              classification       top-1 accuracy, the same way    labels.py
    text, label, positive, negative          discrimination       AUC, the same way               labels.py
    prompt, reference                        writing              word error rate                 writing.py

A line is of the kind that it has most keys of, of several such kinds the one that lacks fewest; other keys are left alone. All
lines of a file are of one kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.analysis.tasks.answers import Answering, Answers
from bitwright.analysis.tasks.figures import Statistic
from bitwright.analysis.tasks.labels import classes_of, classification, discrimination, pairs_of
from bitwright.analysis.tasks.likelihoods import right_in_tokens
from bitwright.analysis.tasks.lines import Line, read_lines
from bitwright.analysis.tasks.multiple_choice import multiple_choice
from bitwright.analysis.tasks.questions import questions_of
from bitwright.analysis.tasks.writing import prompts_of, references_in_tokens, transcription
from bitwright.analysis.unseen import ELSEWHERE, require_unseen
from bitwright.calibration.marks import Marks, remembered
from bitwright.errors import TaskError
from bitwright.models.base import LanguageModel

OTHER_TASK = "ask another task, or calibrate on another text (--calibration)"


@dataclass(frozen=True)
class Kind:
    """`keys`, each by any of its spellings; `read` gives the items of a file's lines, `in_tokens` those with their right answers
    and refuses what a model cannot be asked, `answers` asks.
    """

    keys: tuple[tuple[str, ...], ...]
    read: Callable[[Sequence[Line]], Sequence[Any]]
    in_tokens: Callable[[LanguageModel, Sequence[Any]], list[list[int]]]
    answers: Callable[[Answering, Sequence[Any]], Answers]

    def fit(self, fields: dict[str, Any]) -> tuple[int, int]:
        """How many of the keys are there, and how many are not, as a negative number."""
        present = sum(any(name in fields for name in names) for names in self.keys)
        return present, present - len(self.keys)

    def __str__(self) -> str:
        return ", ".join(" or ".join(names) for names in self.keys)


CHOICES = (("context", "question"), ("choices",), ("answer",))
LABEL = (("text",), ("label",))
PAIR = (*LABEL, ("positive",), ("negative",))
WRITING = (("prompt",), ("reference",))

KINDS = {
    "multiple choice": Kind(CHOICES, questions_of, right_in_tokens, multiple_choice),
    "classification": Kind(LABEL, classes_of, right_in_tokens, classification),
    "discrimination": Kind(PAIR, pairs_of, right_in_tokens, discrimination),
    "writing": Kind(WRITING, prompts_of, references_in_tokens, transcription),
}


@dataclass(frozen=True)
class FileTask:
    """`kind` is one of KINDS, `items` what its `read` gave."""

    kind: str
    items: tuple[Any, ...]

    def check(self, model: LanguageModel) -> None:
        """Raises `TaskError` for a line that the model cannot be asked, before it is asked any."""
        KINDS[self.kind].in_tokens(model, self.items)

    def require_unseen(self, model: LanguageModel, marks: Marks, cure: str = ELSEWHERE) -> None:
        """Raises `TextError` where calibration of the model, whose `marks` these are, saw the items with their right answers."""
        require_unseen(map(np.array, KINDS[self.kind].in_tokens(model, self.items)), marks, cure)

    def answers(self, answering: Answering) -> Answers:
        return KINDS[self.kind].answers(answering, self.items)


def read_task(path: str | Path) -> FileTask:
    """Raises `TaskError` that names the line, for one that is of no kind or of another one than the lines before."""
    lines = read_lines(path)
    if not lines:
        raise TaskError(f"{path} holds no task; write one JSON object a line, with the keys of one kind: {_all_keys()}")
    first = kind_of(lines[0])
    for line in lines:
        kind = kind_of(line)
        if kind != first:
            raise line.fault(f"it is {kind}, line {lines[0].number} {first}; keep to one kind in a file")
    return FileTask(first, tuple(KINDS[first].read(lines)))


def kind_of(line: Line) -> str:
    """Raises `TaskError` for a line that has the keys of none, or of several."""
    fits = {name: kind.fit(line.fields) for name, kind in KINDS.items()}
    best = [name for name, fit in fits.items() if fit == max(fits.values())]
    if not fits[best[0]][0]:
        raise line.fault(f"it has no key of a task; give all of one kind: {_all_keys()}")
    if len(best) > 1:
        raise line.fault(f"it has keys of {' and '.join(best)} alike; leave out those of all but one")
    return best[0]


@dataclass(frozen=True)
class FileFigure:
    """`evaluate(model)` for plans and `task_drop`: a file's figure, of models as they run, in 32 bits of the one of fingerprint
    `original`. Raises `TextError` for another one that calibrated on the file, unless `allow_seen`.
    """

    task: FileTask
    original: str
    allow_seen: bool = False

    def __call__(self, model: LanguageModel) -> Statistic:
        if model.fingerprint() == self.original:
            return self.task.answers(Answering(model, "fp32", "fp32")).first
        self.require_unseen(model, remembered(model))
        return self.task.answers(Answering(model)).first

    def require_unseen(self, model: LanguageModel, marks: Marks) -> None:
        """Raises `TextError` where calibration of the model saw the file, as its `marks` tell."""
        if not self.allow_seen:
            self.task.require_unseen(model, marks, OTHER_TASK)


def file_task(path: str | Path, reference: LanguageModel, allow_seen: bool = False) -> FileFigure:
    """The figure of a file, `reference` being asked in 32 bits.

    Raises `TaskError` at once for a file that cannot be read, or asked of `reference`.
    """
    task = read_task(path)
    task.check(reference)
    return FileFigure(task, reference.fingerprint(), allow_seen)


def _all_keys() -> str:
    return "; ".join(map(str, KINDS.values()))
