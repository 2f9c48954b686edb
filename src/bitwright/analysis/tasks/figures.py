"""Figures of a task's answers: word error rate, top-1 accuracy, area under the ROC curve.

    WER = (substitutions + deletions + insertions) / words of the references, by the least edits (Levenshtein 1966)
    AUC = P(score of a positive > score of a negative) + P(equal) / 2       (Mann and Whitney 1947; Hanley and McNeil 1982)

Each is a function of how often each item counts: of all once it is the figure, and of whole items drawn with replacement (for
WER utterances: Bisani and Ney 2004, ICASSP) it gives the interval, see analysis/significance.py. Words are counted here and
not by a library, because twenty lines need no dependency.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.analysis.significance import percentile_interval, resample
from bitwright.errors import TaskError

DRAWS_AT_ONCE = 50

Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Figure:
    """A figure with its 95 % interval, and how many items it is of."""

    value: float
    interval: tuple[float, float]
    items: int


@dataclass(frozen=True)
class Statistic:
    """A figure before anything is drawn. `of`: (draws, items) counts -> (draws,) figures, NaN where what was drawn has none.

    `name` is for people. `right`: (items,), where the figure is the share of right answers.
    """

    name: str
    of: Callable[[npt.NDArray[Any]], Doubles]
    items: int
    lower_is_better: bool = False
    right: Mask | None = None

    @property
    def value(self) -> float:
        return float(self.of(np.ones((1, self.items)))[0])

    def figure(self) -> Figure:
        return Figure(self.value, finite_interval(self.of(resample(np.arange(self.items)).counts)), self.items)


def finite_interval(replicates: Doubles) -> tuple[float, float]:
    """Of those that have a figure."""
    return percentile_interval(replicates[np.isfinite(replicates)])


def mean_score(values: npt.NDArray[Any]) -> Statistic:
    """Of (items,) scores of the items themselves. Raises `TaskError` where there are none."""
    _require_items(len(values))
    scores = np.asarray(values, np.float64)
    return Statistic("score", lambda counts: counts @ scores / counts.sum(axis=1), len(scores))


def share_right(name: str, right: Mask) -> Statistic:
    """Of (items,) answers. Raises `TaskError` where there are none."""
    return replace(mean_score(right), name=name, right=right)


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> Figure:
    """Over all utterances together. Words are what blanks separate: case and punctuation are the caller's to strip.

    May exceed 1. Raises `TaskError` for lists of different lengths, and where the references have no words.
    """
    return word_errors(references, hypotheses).figure()


def word_errors(references: Sequence[str], hypotheses: Sequence[str]) -> Statistic:
    """The word error rate. Raises what `word_error_rate` raises."""
    _require_alike(len(references), len(hypotheses), "hypothesis", "reference")
    pairs = [(said.split(), heard.split()) for said, heard in zip(references, hypotheses, strict=True)]
    edits = np.array([word_edits(said, heard) for said, heard in pairs], np.float64)
    words = np.array([len(said) for said, _ in pairs], np.float64)
    if not words.sum():
        raise TaskError("the references hold no words, so there is no error rate; give transcripts")
    return Statistic("word error rate", lambda counts: _ratio(counts @ edits, counts @ words), len(pairs), lower_is_better=True)


def word_edits(said: Sequence[str], heard: Sequence[str]) -> int:
    """The least number of words to substitute, delete or insert, row by row of the table of all beginnings."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(heard, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]


def top1_accuracy(scores: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Figure:
    """Share of (items, classes) `scores` whose largest is at the item's label; of equal ones the first counts.

    Raises `TaskError` for other shapes, labels that are no class, and scores that are not finite.
    """
    return top1(scores, labels).figure()


def top1(scores: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Statistic:
    """The top-1 accuracy. Raises what `top1_accuracy` raises."""
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 2 or labels.ndim != 1:
        raise TaskError(
            f"top-1 accuracy takes (items, classes) scores and (items,) labels, not {scores.shape} and {labels.shape}"
        )
    _require_alike(len(labels), len(scores), "row of scores", "label")
    _require_finite(scores)
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise TaskError(f"labels must be whole numbers from 0 to {scores.shape[1] - 1}, the numbers of the classes")
    return share_right("top-1 accuracy", scores.argmax(axis=1) == labels)


def auc(scores: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Figure:
    """Of (items,) `scores` and labels 0 or 1. Raises `TaskError` unless both labels occur and all scores are finite."""
    return ranking(scores, labels).figure()


def ranking(scores: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Statistic:
    """The AUC. Raises what `auc` raises.

    With each distinct score a group, a draw's positives and negatives are sums over its groups: one product for all draws.
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    if scores.ndim != 1 or labels.ndim != 1:
        raise TaskError(f"AUC takes (items,) scores and labels, not {scores.shape} and {labels.shape}")
    _require_alike(len(labels), len(scores), "score", "label")
    _require_finite(scores)
    if set(np.unique(labels).tolist()) != {0, 1}:
        raise TaskError("AUC needs labels 0 and 1, at least one of each")
    order = np.argsort(scores, kind="stable")
    begins = np.flatnonzero(np.diff(scores[order], prepend=np.nan) != 0)
    positive = labels[order] == 1

    def of(counts: npt.NDArray[Any]) -> Doubles:
        draws = range(0, len(counts), DRAWS_AT_ONCE)
        return np.concatenate([_auc(counts[draw : draw + DRAWS_AT_ONCE, order], positive, begins) for draw in draws])

    return Statistic("AUC", of, len(scores))


def _auc(counts: npt.NDArray[Any], positive: Mask, begins: npt.NDArray[np.int64]) -> Doubles:
    """(draws, items by ascending score) counts to (draws,); NaN for a draw that has one label only."""
    positives = np.add.reduceat(counts * positive, begins, axis=1).astype(np.float64)
    negatives = np.add.reduceat(counts * ~positive, begins, axis=1).astype(np.float64)
    wins = (positives * (np.cumsum(negatives, axis=1) - negatives / 2)).sum(axis=1)
    return _ratio(wins, positives.sum(axis=1) * negatives.sum(axis=1))


def _ratio(above: Doubles, below: Doubles) -> Doubles:
    """NaN where there is nothing to divide by."""
    return np.asarray(np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0), np.float64)


def _require_items(count: int) -> None:
    if not count:
        raise TaskError("there are no items to measure; give at least one")


def _require_alike(expected: int, found: int, what: str, each: str) -> None:
    _require_items(expected)
    if expected != found:
        raise TaskError(f"each {each} needs one {what}, but there are {expected} and {found}")


def _require_finite(scores: npt.NDArray[Any]) -> None:
    if not np.isfinite(scores).all():
        raise TaskError("scores are NaN or infinite; check the model that gave them")
