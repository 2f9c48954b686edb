"""AWQ's clipping: in each group, weights beyond a limit are cut off where that lowers the error of the layer's output.

Of a group's columns the error is e^T H_gg e, e = Q(clip(w)) - w, H_gg the second moments of the inputs that they read; limits
are ratios of the group's largest weight, from 1 down to .55 in steps of 1/20. Queries and keys are spared, because their
errors meet in a product. Nothing is cut where nothing is rounded.
Lin et al. 2023, arXiv:2306.00978; the steps and what is spared are those of the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from bitwright.core import Choice
from bitwright.models.architecture import kind_of
from bitwright.models.base import LanguageModel
from bitwright.transforms.model import Edit, part
from bitwright.transforms.setting import Setting

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

RATIOS = tuple(1 - step / 20 for step in range(10))
CLIPPED = ("v", "o", "gate", "up", "down")


def awq_clip(model: LanguageModel, setting: Setting) -> list[Edit]:
    """Limits for every matrix that is rounded, queries and keys aside, and experts that no token reached."""
    found = []
    for seen in setting.inputs(model):
        for role in seen.roles:
            choice = setting.choice(role, seen.layer)
            if kind_of(role) in CLIPPED and choice is not None:

                def again(weights: Floats, role: str = role, layer: int = seen.layer) -> Floats:
                    return setting.rounded(role, layer, weights)

                weights = part(model, role, seen.layer)
                limits = best_limits(weights, seen.gram, group_size(choice, weights.shape), again)
                found.append(Edit(role, seen.layer, clipped(limits)))
    return found


def group_size(choice: Choice, shape: Sequence[int]) -> int:
    """Columns that are cut alike."""
    return choice.scheme.group if choice.scheme.group > 0 else int(shape[-1])


def best_limits(weights: Floats, gram: Doubles, group: int, rounded: Callable[[Floats], Floats]) -> Floats:
    """(rows, groups): beyond which magnitude each group is cut."""
    rows, columns = weights.shape
    blocks = gram.reshape(columns // group, group, columns // group, group)
    own = np.stack([blocks[g, :, g] for g in range(columns // group)]).astype(np.float32)  # (groups, group, group)
    largest = np.abs(weights).reshape(rows, -1, group).max(axis=2)
    best: Floats = largest.copy()
    least = np.full(largest.shape, np.inf)
    for ratio in RATIOS:
        limits = largest * np.float32(ratio)
        error = (rounded(clipped(limits)(weights)) - weights).reshape(rows, -1, group).transpose(1, 0, 2)  # (groups, rows, group)
        lost = ((error @ own) * error).sum(axis=2).T
        better = lost < least
        best[better], least[better] = limits[better], lost[better]
    return best


def clipped(limits: Floats) -> Callable[[Floats], Floats]:
    """Each group of a row cut at its limit, (rows, groups)."""

    def change(weights: Floats) -> Floats:
        bound = np.repeat(limits, weights.shape[1] // limits.shape[1], axis=1)
        result: Floats = np.clip(weights, -bound, bound)
        return result

    return change
