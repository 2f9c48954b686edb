"""What a model lost on a task against its reference, both on the same items.

The drop is the reference's score less the model's; of an error rate, which is better lower, the model's less the
reference's: positive is worse. Where both answered the same items, draws of items are shared
(analysis/significance.py), so that items hard for both cancel. Of answers that are right or wrong, with b the items that
only the reference got right and c those that only the model did, McNemar's exact test asks how likely so uneven a split
is if each of the b + c could have gone either way (McNemar 1947, Psychometrika 12):

    p = min(1, 2 P(X <= min(b, c))),  X binomial with b + c trials and probability 1/2
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.analysis.significance import resample
from bitwright.analysis.tasks.figures import Statistic, finite_interval, mean_score
from bitwright.errors import TaskError
from bitwright.models import load
from bitwright.models.base import LanguageModel

Scored = float | Sequence[float] | npt.NDArray[Any] | Statistic


@dataclass(frozen=True)
class Drop:
    """`drop` is by how much the model is worse, negative where it is better: `score_reference` - `score`, or the reverse where
    `lower_is_better`. `measure` names the score. One number a model has no `interval`.
    """

    score: float
    score_reference: float
    drop: float
    interval: tuple[float, float] | None = None
    measure: str = "score"
    lower_is_better: bool = False


def task_drop(
    model: LanguageModel | str | Path, reference: LanguageModel | str | Path, evaluate: Callable[[LanguageModel], Scored]
) -> Drop:
    """What `model` loses against `reference` by any measure of yours.

    `evaluate` is called with each, paths being loaded, and gives a number that grows with quality (of an error rate, its
    negative), or one for each item: then the drop has a 95 % interval. That of a file is made by `file_task`. Raises
    `TaskError` for numbers that are not finite, or not of the same items.
    """
    answers, answers_reference = (evaluate(loaded(each)) for each in (model, reference))
    if isinstance(answers, Statistic) and isinstance(answers_reference, Statistic):
        return paired(answers, answers_reference)
    found, expected = _numbers(answers), _numbers(answers_reference)
    if found.shape != expected.shape or found.ndim > 1 or not found.size:
        raise TaskError(
            f"evaluate gave {_shape(found)} for the model and {_shape(expected)} for the reference; score the same items"
        )
    if not np.isfinite(found).all() or not np.isfinite(expected).all():
        raise TaskError("evaluate gave NaN or infinity; leave out what cannot be scored")
    if found.ndim == 0:
        return Drop(float(found), float(expected), float(expected - found))
    return paired_drop(found, expected)


def paired_drop(scores: npt.NDArray[Any], scores_reference: npt.NDArray[Any]) -> Drop:
    """Of (items,) scores each, item by item the same."""
    return paired(mean_score(scores), mean_score(scores_reference))


def paired(model: Statistic, reference: Statistic) -> Drop:
    """Of a figure of both models' answers to the same items. Raises `TaskError` for two that differ in name or items."""
    if (model.name, model.items) != (reference.name, reference.items):
        both = (f"the {one.name} of {one.items} items" for one in (model, reference))
        raise TaskError(f"{' and '.join(both)} do not compare; score the same items in the same way")
    counts = resample(np.arange(model.items)).counts
    larger, smaller = (model, reference) if model.lower_is_better else (reference, model)
    drop, interval = larger.value - smaller.value, finite_interval(larger.of(counts) - smaller.of(counts))
    return Drop(model.value, reference.value, drop, interval, model.name, model.lower_is_better)


def mcnemar(right: npt.NDArray[Any], right_reference: npt.NDArray[Any]) -> float:
    """The exact two-sided p of (items,) answers, 0 or 1 each; 1 where they differ nowhere."""
    right, right_reference = np.asarray(right, np.bool_), np.asarray(right_reference, np.bool_)
    lost, gained = int((right_reference & ~right).sum()), int((right & ~right_reference).sum())
    trials, fewer = lost + gained, min(lost, gained)
    tail = sum(math.comb(trials, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / (1 << trials))


def _numbers(given: Scored) -> npt.NDArray[np.float64]:
    if isinstance(given, Statistic):
        raise TaskError("evaluate gave a statistic for one model and numbers for the other; score both in the same way")
    return np.asarray(given, np.float64)


def _shape(values: npt.NDArray[Any]) -> str:
    return "one number" if values.ndim == 0 else f"an array of shape {values.shape}"


def loaded(model: LanguageModel | str | Path) -> LanguageModel:
    return load(model) if isinstance(model, str | Path) else model
