"""Climbing by swaps: what each tensor truly costs inside the plan, from which the program swaps schemes between tensors.

Foretold losses look at one tensor in an otherwise perfect model and stop at the second order. So the plan that was made is
measured from its inside: restoring tensor i alone brings back R_i of the loss, where F_i was foretold. The ratio is noisy on
little text, and is drawn towards that of all tensors together by as much as noise explains the differences between ratios
(the empirical Bayes estimate of Efron and Morris 1973, JASA 68):

    r_i = R_i / F_i,   r = sum R / sum F,   v_i = variance of r_i from resampling windows
    t^2 = max(0, weighted mean of (r_i - r)^2 - v_i),   weight_i = 1 + (r_i / r - 1) t^2 / (t^2 + v_i)

With losses so weighted the integer program is solved again; where it chooses otherwise, schemes have been swapped: some
tensors gave bits to others. A step is kept only where the model made of it measures better: that is for planning.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bitwright.analysis.probe import Probe
from bitwright.analysis.significance import resample, units_of_windows
from bitwright.models.base import LanguageModel

Doubles = npt.NDArray[np.float64]
Tokens = npt.NDArray[np.int32]
Progress = Callable[[int, int], None]

MOST_TENSORS = 40  # that are restored, those of the largest foretold loss
LEAST_WEIGHT = 0.2  # a tensor whose restoring hurts is not taken to be free


@dataclass(frozen=True)
class Regained:
    """`mean` of the loss that restoring one tensor brings back, nats a token, and the variance of that mean."""

    mean: float
    variance: float


def regained(
    model: LanguageModel, made: LanguageModel, names: Sequence[str], windows: Tokens, progress: Progress | None = None
) -> dict[str, Regained]:
    """Of each of these stored matrices, restored alone in `made`. `windows` (windows, tokens)."""
    draws = resample(units_of_windows([windows.shape[1]] * len(windows)))
    matrices = {place.name for place in model.roles().values() if len(model.shape(place.name)) == 2}
    reference = Probe(model, windows).reference
    lossy = Probe(model, windows, lambda name: (made if name in matrices else model).read(name), reference)
    whole, found = lossy.divergence({}), {}
    for done, name in enumerate(names):
        back = whole - lossy.divergence({name: model.read(name)})
        found[name] = Regained(float(back.mean()), float(draws.means(back).var()))
        if progress is not None:
            progress(done + 1, len(names))
    return found


def weights(foretold: Sequence[float], back: Sequence[Regained]) -> list[float]:
    """By how much to multiply the foretold loss of each tensor, 1 on average; see the module. `foretold` are above zero."""
    expected, means = np.array(foretold), np.array([each.mean for each in back])
    overall = means.sum() / expected.sum()
    if overall <= 0:
        return [1.0] * len(foretold)
    ratios = means / expected / overall
    noise = np.array([each.variance for each in back]) / (expected * overall) ** 2
    share = expected / expected.sum()
    spread = max(0.0, float((share * ((ratios - 1) ** 2 - noise)).sum()))
    shrunk = 1 + (ratios - 1) * spread / (spread + noise + 1e-30)
    return [float(weight) for weight in np.maximum(shrunk, LEAST_WEIGHT)]


def worth_restoring(foretold: Sequence[float]) -> list[int]:
    """The tensors whose foretold loss matters most, by position; those that cost nothing are left out."""
    order = sorted(range(len(foretold)), key=lambda position: -foretold[position])
    return [position for position in order[:MOST_TENSORS] if foretold[position] > 0]
