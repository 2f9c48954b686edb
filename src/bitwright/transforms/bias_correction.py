"""Bias correction: what rounding shifts a layer's outputs by on average is taken off its bias.

    E[Q x] - E[W x] = (Q - W) E[x],   b' = b - (Q - W) E[x]

With Q = W nothing changes. Layers without a bias are left alone; a model without any is refused.
Nagel et al. 2019, arXiv:1906.04721, section 4.2; Banner et al. 2018, arXiv:1810.05723.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bitwright.errors import RecipeError
from bitwright.models.base import LanguageModel
from bitwright.transforms.model import Edit, part
from bitwright.transforms.setting import Setting

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


def check_biases(model: LanguageModel) -> None:
    """Raises `RecipeError`."""
    if not any(role.endswith("_bias") for role, _ in model.roles()):
        raise RecipeError("bias-correction: no layer of this model has a bias to correct; leave it out")


def bias_correction(model: LanguageModel, setting: Setting) -> list[Edit]:
    """Every bias of a layer that is rounded. Rounding is to nearest, as the recipe fits it."""
    known, found = model.roles(), []
    for seen in setting.inputs(model):
        for role in seen.roles:
            if (f"{role}_bias", seen.layer) in known and setting.choice(role, seen.layer) is not None:
                weights = part(model, role, seen.layer)
                moves = shift(weights, setting.rounded(role, seen.layer, weights), seen.mean)
                found.append(Edit(f"{role}_bias", seen.layer, less(moves)))
    return found


def less(moves: Doubles) -> Callable[[Floats], Floats]:
    """Of a bias."""
    return lambda bias: (bias - moves).astype(np.float32)


def shift(weights: Floats, rounded: Floats, mean: Doubles) -> Doubles:
    """(outputs,): how far rounding moves the mean output, for matrices (outputs, inputs) and the mean input (inputs,).

    A convolution's kernel is summed over first: (outputs, inputs, ...), which is exact but at the borders.
    """
    error = rounded.astype(np.float64) - weights
    return np.asarray(error.reshape(*error.shape[:2], -1).sum(axis=2) @ mean)
