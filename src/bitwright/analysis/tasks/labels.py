"""Texts with labels, by the log-likelihood of answers after the text: classes to choose from, or two to rank texts by.

    {"text": "Goals in the last minute. Topic:", "label": "sports"}
        top-1 accuracy: the labels of the whole file are the candidates, the likeliest after the text is the answer

    {"text": "A film to remember. Is this praise?", "label": 1, "positive": "yes", "negative": "no"}
        AUC of log p(positive | text) - log p(negative | text), the same two answers in every line; no threshold is needed

Text and answer are joined as a question's context and its choices are (questions.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bitwright.analysis.tasks.answers import Answering, Answers
from bitwright.analysis.tasks.figures import ranking, top1
from bitwright.analysis.tasks.likelihoods import ask
from bitwright.analysis.tasks.lines import SHOWN, Line
from bitwright.analysis.tasks.questions import MOST_CHOICES, Question
from bitwright.errors import TaskError


def classes_of(lines: Sequence[Line]) -> list[Question]:
    """Questions whose choices are all labels of the file, in the order of their first lines. Raises `TaskError`."""
    numbers: dict[str, int] = {}
    spelled: dict[str, str] = {}
    for line in lines:
        line.text("text")
        if isinstance(line.fields.get("label"), int):
            raise line.fault('label must be a text, such as "yes"; for 0 and 1 say what they mean: add positive and negative')
        label = line.text("label")
        if spelled.setdefault(label.strip(), label) != label:
            raise line.fault(f"the label {label[:SHOWN]!r} differs from another one by blanks alone; spell both alike")
        if numbers.setdefault(label, len(numbers)) == MOST_CHOICES:
            raise line.fault(f"it brings label {MOST_CHOICES + 1}; a file may have {MOST_CHOICES} different ones")
    if len(numbers) < 2:
        raise TaskError(f"{lines[0].path} has no label but {next(iter(numbers))[:SHOWN]!r}; give lines of two at least")
    labels = tuple(numbers)
    return [Question(line.text("text"), labels, numbers[line.text("label")], line.number) for line in lines]


def pairs_of(lines: Sequence[Line]) -> list[Question]:
    """Questions whose choices are the negative and the positive answer. Raises `TaskError`."""
    first, labels = lines[0], set()
    for line in lines:
        line.text("text")
        label = line.fields.get("label")
        if not isinstance(label, int) or isinstance(label, bool) or label not in (0, 1):
            raise line.fault(f"label must be 1 where positive is right or 0 where negative is, not {str(label)[:SHOWN]!r}")
        labels.add(label)
        if line.text("positive").strip() == line.text("negative").strip():
            raise line.fault("positive and negative are the same answer; write two that differ")
        if any(line.fields[key] != first.fields[key] for key in ("positive", "negative")):
            raise line.fault(f"positive and negative must be those of line {first.number}: other answers give other scores")
    if len(labels) < 2:
        raise TaskError(f"{first.path} has no label but {labels.pop()}; AUC needs lines with 0 and lines with 1")
    choices = first.text("negative"), first.text("positive")
    return [Question(line.text("text"), choices, line.fields["label"], line.number) for line in lines]


def classification(answering: Answering, questions: Sequence[Question]) -> Answers:
    """Top-1 accuracy; all questions have the same choices. Raises what `ask` raises."""
    asked, likelihoods = ask(answering, questions)
    return Answers("accuracy", {"": top1(np.array(likelihoods), np.array([one.answer for one in asked]))})


def discrimination(answering: Answering, questions: Sequence[Question]) -> Answers:
    """AUC; all questions have the same two choices, of which answer 1 is the positive. Raises what `ask` raises."""
    asked, likelihoods = ask(answering, questions)
    scores = np.array(likelihoods)
    return Answers("auc", {"": ranking(scores[:, 1] - scores[:, 0], np.array([one.answer for one in asked]))})
