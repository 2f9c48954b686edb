"""Cross-layer equalization: the scale of a channel moves between two layers until both span it alike.

With r1_i the largest weight of row i of the first layer and r2_i that of column i of the second,

    s_i = sqrt(r1_i / r2_i),   W1_i / s_i,   b1_i / s_i,   W2_.i s_i     so that both ranges become sqrt(r1_i r2_i)

which f(s x) = s f(x) allows: ReLU between consecutive layers of a convolution net, and in a decoder v -> o and up -> down.
No data is needed. Nagel et al. 2019, arXiv:1906.04721, section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bitwright.models.architecture import experts_of, of_expert
from bitwright.models.base import LanguageModel
from bitwright.transforms.edits import moved, value_channels
from bitwright.transforms.model import Edit, part
from bitwright.transforms.setting import Setting

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

SWEEPS = 20  # over a chain of layers
CONVERGED = 1e-4  # largest |s - 1|


@dataclass(frozen=True)
class Layer:
    """A linear layer or convolution: `weights` (outputs, inputs, ...), `bias` (outputs,)."""

    weights: Floats
    bias: Floats | None = None


def equalize(model: LanguageModel, setting: Setting) -> list[Edit]:
    """From v to o and from up to down, of each expert in a mixture, layer by layer."""
    found = []
    pairs = [("v", "o"), *((of_expert("up", one), of_expert("down", one)) for one in experts_of(model.architecture))]
    for layer in range(model.architecture.layers):
        for first, second in pairs:
            rows = np.abs(part(model, first, layer)).max(axis=1).astype(np.float64)
            columns = np.abs(part(model, second, layer)).max(axis=0).astype(np.float64)
            if second == "o":
                columns = value_channels(model.architecture, columns).max(axis=0)
            found += moved(model, layer, (second,), balance(rows, columns))
    return found


def equalize_chain(layers: Sequence[Layer]) -> list[Layer]:
    """Consecutive layers with ReLU, or nothing, between them: the same function with equal ranges, pair by pair until settled.

    A depthwise convolution has as many outputs as the next layer has inputs, like any other; its own inputs are 1.
    """
    result = list(layers)
    for _ in range(SWEEPS):
        settled = 0.0
        for index in range(len(result) - 1):
            first, second = result[index], result[index + 1]
            depthwise = second.weights.shape[1] == 1 and len(second.weights) == len(first.weights)
            axes = tuple(axis for axis in range(second.weights.ndim) if axis != (0 if depthwise else 1))
            rows = np.abs(first.weights).max(axis=tuple(range(1, first.weights.ndim))).astype(np.float64)
            scale = balance(rows, np.abs(second.weights).max(axis=axes).astype(np.float64))
            bias = None if first.bias is None else (first.bias / scale).astype(np.float32)
            result[index] = Layer((first.weights.T / scale).T.astype(np.float32), bias)
            result[index + 1] = replace(second, weights=_inputs_times(second.weights, scale, depthwise))
            settled = max(settled, float(np.abs(scale - 1).max()))
        if settled < CONVERGED:
            break
    return result


def balance(rows: Doubles, columns: Doubles) -> Doubles:
    """S for channels of these ranges; 1 where either is zero."""
    both = (rows > 0) & (columns > 0)
    return np.sqrt(np.where(both, rows, 1.0) / np.where(both, columns, 1.0))


def _inputs_times(weights: Floats, scale: Doubles, depthwise: bool) -> Floats:
    shape = [1] * weights.ndim
    shape[0 if depthwise else 1] = len(scale)
    return (weights * scale.reshape(shape)).astype(np.float32)
