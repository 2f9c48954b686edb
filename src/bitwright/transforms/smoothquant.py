"""SmoothQuant: columns in which inputs are large are made smaller, and the weights that read them larger by as much.

    s_j = max|x_j|^a / max_i |W_ij|^(1 - a),   x_j / s_j,   W_ij s_j,   a = 1/2

so that inputs and weights are equally hard to quantize. s moves into what gives x (transforms/edits.py). Heads that share a
value head share s, by the largest of each. Xiao et al. 2022, arXiv:2211.10438, eq. 4.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitwright.models.base import LanguageModel
from bitwright.transforms.edits import GIVER, moved, value_channels
from bitwright.transforms.model import Edit, part
from bitwright.transforms.setting import Setting

Doubles = npt.NDArray[np.float64]

ALPHA = 0.5
SMALLEST = 1e-5  # of what is divided by, as in the authors' code


def smoothquant(model: LanguageModel, setting: Setting) -> list[Edit]:
    """Every input whose giver can take the scales."""
    found = []
    for seen in setting.inputs(model):
        if seen.roles[0] in GIVER:
            weights = np.max([np.abs(part(model, role, seen.layer)).max(axis=0) for role in seen.roles], axis=0)
            largest, weights = seen.largest, weights.astype(np.float64)
            if seen.roles == ("o",):
                largest, weights = (value_channels(model.architecture, values).max(axis=0) for values in (largest, weights))
            found += moved(model, seen.layer, seen.roles, smoothing(largest, weights))
    return found


def smoothing(inputs: Doubles, weights: Doubles, alpha: float = ALPHA) -> Doubles:
    """S of columns with these largest magnitudes, (columns,) each. A column that is zero in either keeps s = 1."""
    scale = np.maximum(inputs, SMALLEST) ** alpha / np.maximum(weights, SMALLEST) ** (1 - alpha)
    return np.where((inputs > 0) & (weights > 0), np.maximum(scale, SMALLEST), 1.0)
