"""AWQ: the columns that inputs make important are scaled up before rounding, so that rounding hurts them less.

    s = size^a, size_j = mean|x_j|;   least over a of   sum over the layers W that read x of trace(E H E^T),
    E = Q(W diag(s)) diag(1/s) - W

a runs from 0 (nothing is scaled) to 1 in steps of 1/20; s is brought to sqrt(max s * min s) = 1. H is the second moment of the
inputs, so the error is that of the layers' outputs on calibration text, and Q rounds as the recipe says, to nearest. s moves
into what gives x (transforms/edits.py). Heads that share a value head share s, by the mean of their sizes.

Lin et al. 2023, arXiv:2306.00978; the steps are those of the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from bitwright.models.architecture import Architecture
from bitwright.models.base import LanguageModel
from bitwright.observers.inputs import Inputs
from bitwright.transforms.edits import GIVER, moved, shared_heads, value_channels
from bitwright.transforms.model import Edit, part
from bitwright.transforms.setting import Setting

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Round = Callable[[str, int, Floats], Floats]

POWERS = tuple(step / 20 for step in range(20))
SMALLEST = 1e-4  # of a scale, as in the authors' code


def awq(model: LanguageModel, setting: Setting) -> list[Edit]:
    """Scales for every input whose giver can take them."""
    found = []
    for seen in setting.inputs(model):
        if seen.roles[0] in GIVER:
            weights = {role: part(model, role, seen.layer) for role in seen.roles if setting.choice(role, seen.layer)}
            scale = best_scale(seen, weights, setting.rounded, model.architecture)
            if scale is not None:
                found += moved(model, seen.layer, seen.roles, scale)
    return found


def best_scale(seen: Inputs, weights: Mapping[str, Floats], rounded: Round, architecture: Architecture) -> Doubles | None:
    """The s of least error, one number a channel of the giver; None where no s is better than none."""
    grouped = seen.roles == ("o",)
    size = value_channels(architecture, seen.size).mean(axis=0) if grouped else seen.size
    gram = seen.gram.astype(np.float32)
    best, least = None, np.inf
    for power in POWERS:
        scale = scales(size, power)
        spread = (shared_heads(architecture, scale) if grouped else scale).astype(np.float32)
        error = sum(
            output_error(rounded(role, seen.layer, matrix * spread) / spread - matrix, gram) for role, matrix in weights.items()
        )
        if error < least:
            best, least = (scale if power else None), error
    return best


def scales(size: Doubles, power: float) -> Doubles:
    """size^power, centred."""
    scale = np.maximum(size**power, SMALLEST)
    return np.asarray(scale / np.sqrt(scale.max() * scale.min()))


def output_error(error: Floats, gram: Floats) -> float:
    """trace(E H E^T)."""
    return float(np.vdot(error @ gram, error))
