"""Climbing by swaps: what each tensor truly costs inside the plan, from which the program swaps schemes between tensors.

Foretold losses look at one tensor in an otherwise perfect model and stop at the second order. So the plan that was made is
measured from its inside: restoring tensor i alone brings back R_i of the loss, where F_i was foretold. The ratio is noisy on
little text, and is drawn towards that of all tensors together by as much as noise explains the differences between ratios
(the empirical Bayes estimate of Efron and Morris 1973, JASA 68). First for the kinds, all tensors of one restored together,
which noise troubles less; then for tensors alone, against what their kinds have made of F_i:

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
from bitwright.models.row_blocks import named_rows

Floats = npt.NDArray[np.float32]
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
    model: LanguageModel,
    made: LanguageModel,
    groups: Sequence[Sequence[str]],
    windows: Tokens,
    progress: Progress | None = None,
) -> list[Regained]:
    """Of each group of stored matrices or blocks of their rows, restored together and without the others in `made`.

    `windows` (windows, tokens).
    """
    draws = resample(units_of_windows([windows.shape[1]] * len(windows)))
    matrices = {place.name for place in model.roles().values() if len(model.shape(place.name)) == 2}
    reference = Probe(model, windows).reference
    lossy = Probe(model, windows, lambda name: (made if name in matrices else model).read(name), reference)
    whole, found = lossy.divergence({}), list[Regained]()
    for done, names in enumerate(groups):
        back = whole - lossy.divergence(_restored(model, made, names))
        found.append(Regained(float(back.mean()), float(draws.means(back).var())))
        if progress is not None:
            progress(done + 1, len(groups))
    return found


def _restored(model: LanguageModel, made: LanguageModel, names: Sequence[str]) -> dict[str, Floats]:
    """Matrices of `made`, those that are named as in `model`, or their rows that are."""
    found: dict[str, Floats] = {}
    for name in names:
        block = named_rows(name)
        if block is None:
            found[name] = model.read(name)
        else:
            matrix, (begin, end) = block
            found.setdefault(matrix, np.array(made.read(matrix)))[begin:end] = model.stored(matrix).rows(begin, end).dequantize()
    return found


def corrections(
    foretold: Sequence[float], kinds: Sequence[Sequence[int]], alone: Sequence[int], back: Sequence[Regained]
) -> list[float]:
    """By how much to multiply the foretold loss of every tensor. `kinds` and `alone` are positions, `back` what each of the
    one and then each of the other brought back.
    """
    found = np.ones(len(foretold))
    for positions, weight in zip(kinds, weights([sum(foretold[i] for i in kind) for kind in kinds], back), strict=True):
        found[list(positions)] = weight
    found[list(alone)] *= weights([foretold[i] * found[i] for i in alone], back[len(kinds) :])
    return [float(weight) for weight in found]


def weights(foretold: Sequence[float], back: Sequence[Regained]) -> list[float]:
    """By how much to multiply each foretold loss, 1 on average; see the module. `foretold` are above zero, the first of `back`
    belong to them.
    """
    back = back[: len(foretold)]
    expected, means = np.array(foretold), np.array([each.mean for each in back])
    overall = means.sum() / expected.sum()
    if not overall > 0:  # or there is nothing
        return [1.0] * len(foretold)
    ratios = means / expected / overall
    noise = np.array([each.variance for each in back]) / (expected * overall) ** 2
    share = expected / expected.sum()
    spread = max(0.0, float((share * ((ratios - 1) ** 2 - noise)).sum()))
    shrunk = 1 + (ratios - 1) * spread / (spread + noise + 1e-30)
    return [float(weight) for weight in np.maximum(shrunk, LEAST_WEIGHT)]


def of_a_kind(kinds: Sequence[str], foretold: Sequence[float]) -> list[list[int]]:
    """The positions of each kind of tensors that is foretold to lose anything."""
    groups: dict[str, list[int]] = {}
    for position, kind in enumerate(kinds):
        groups.setdefault(kind, []).append(position)
    return [positions for positions in groups.values() if sum(foretold[position] for position in positions) > 0]


def worth_restoring(foretold: Sequence[float]) -> list[int]:
    """The tensors whose foretold loss matters most, by position; those that cost nothing are left out."""
    order = sorted(range(len(foretold)), key=lambda position: -foretold[position])
    return [position for position in order[:MOST_TENSORS] if foretold[position] > 0]
