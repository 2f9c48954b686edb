"""What a model lost on a task against its reference, both on the same items.

The drop is the reference's score less the model's. Where both answered the same items, draws of items are shared
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

from bitwright.analysis.significance import percentile_interval, resample
from bitwright.errors import TaskError
from bitwright.models import load
from bitwright.models.base import LanguageModel

Scored = float | Sequence[float] | npt.NDArray[Any]


@dataclass(frozen=True)
class Drop:
    """`drop` is `score_reference` - `score`: positive where the model is worse. One number a model has no `interval`."""

    score: float
    score_reference: float
    drop: float
    interval: tuple[float, float] | None = None


def task_drop(
    model: LanguageModel | str | Path, reference: LanguageModel | str | Path, evaluate: Callable[[LanguageModel], Scored]
) -> Drop:
    """What `model` loses against `reference` by any measure of yours.

    `evaluate` is called with each, paths being loaded, and gives a number that grows with quality (of an error rate, its
    negative), or one for each item: then the drop has a 95 % interval. Raises `TaskError` for numbers that are not finite,
    or not of the same items.
    """
    found, expected = (np.asarray(evaluate(_loaded(each)), np.float64) for each in (model, reference))
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
    lost = np.asarray(scores_reference, np.float64) - np.asarray(scores, np.float64)
    replicates = resample(np.arange(len(lost))).means(lost)
    return Drop(float(np.mean(scores)), float(np.mean(scores_reference)), float(lost.mean()), percentile_interval(replicates))


def mcnemar(right: npt.NDArray[Any], right_reference: npt.NDArray[Any]) -> float:
    """The exact two-sided p of (items,) answers, 0 or 1 each; 1 where they differ nowhere."""
    right, right_reference = np.asarray(right, np.bool_), np.asarray(right_reference, np.bool_)
    lost, gained = int((right_reference & ~right).sum()), int((right & ~right_reference).sum())
    trials, fewer = lost + gained, min(lost, gained)
    tail = sum(math.comb(trials, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / (1 << trials))


def _shape(values: npt.NDArray[Any]) -> str:
    return "one number" if values.ndim == 0 else f"an array of shape {values.shape}"


def _loaded(model: LanguageModel | str | Path) -> LanguageModel:
    return load(model) if isinstance(model, str | Path) else model
