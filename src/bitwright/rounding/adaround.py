"""AdaRound: learn for each weight whether to round up or down, by gradient descent on the layer's error. Needs second moments.

Nagel et al. 2020, arXiv:2004.10568. With w = s (floor + fraction) and a gate h(V) = clip(1.2 sigmoid(V) - .1, 0, 1) for
each weight, begun at the fraction:

    minimise  trace((W~ - W) H (W~ - W)^T) + lambda sum(1 - |2 h - 1|^beta),   W~ = s clip(floor + h)

by Adam; the second term, on after a fifth of the steps with beta falling from 20 to 2, drives each gate to 0 or 1. The
error is taken relative to nearest rounding's. Rows that end no better than nearest rounding stay as that left them.
Cost: one product rows * columns^2 a step; `refine` minimises the same error at a tenth of it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitwright.core import QTensor, Scheme
from bitwright.fitting import Fit
from bitwright.formats.uniform import Uniform
from bitwright.rounding.even_steps import learned
from bitwright.rounding.grids import Codes, Grids
from bitwright.rounding.moments import Moments
from bitwright.rounding.refine import row_errors

Floats = npt.NDArray[np.float32]

STEPS, RATE, WEIGHT = 200, 0.1, 3.0
WARM_UP, FIRST_BETA, LAST_BETA = 0.2, 20.0, 2.0


def adaround(weights: Floats, scheme: Scheme, fit: Fit, moments: Moments) -> QTensor:
    """(rows, columns) float32 -> QTensor of the same shape.

    Raises as `nearest` does, and `SchemeError` for a format given by a table of levels.
    """
    gram: Floats = moments.damped.astype(np.float32)

    def learn(values: Floats, grids: Grids, start: Codes) -> QTensor:
        assert grids.uniform is not None
        codes = (gates(values, grids, grids.uniform, gram) - grids.uniform.lowest).astype(np.uint8)
        before, after = row_errors(values, grids, start, gram), row_errors(values, grids, codes, gram)
        return grids.tensor(np.where((after < before)[:, None], codes, start))

    return learned(weights, scheme, fit, learn)


def gates(weights: Floats, grids: Grids, grid: Uniform, gram: Floats) -> Floats:
    """Levels, zero points added, after learning."""
    scale, zero_point = grids.scale[:, grids.group_of], grids.zero_point[:, grids.group_of]
    scaled = weights / scale
    floor = np.floor(scaled)
    chance = np.clip((scaled - floor + 0.1) / 1.2, 1e-3, 1 - 1e-3)
    variable = np.log(chance / (1 - chance))
    nearest_levels = np.clip(np.rint(scaled) + zero_point, grid.lowest, grid.highest) - zero_point
    change = nearest_levels * scale - weights
    unit = np.einsum("ij,ij->", change @ gram, change) / change.size  # the error a weight has on average
    first, second = np.zeros_like(variable), np.zeros_like(variable)
    for step in range(STEPS):
        sigmoid = 1 / (1 + np.exp(-variable))
        gate = np.clip(1.2 * sigmoid - 0.1, 0, 1)
        level = floor + gate + zero_point
        inside = (level > grid.lowest) & (level < grid.highest)
        change = (np.clip(level, grid.lowest, grid.highest) - zero_point) * scale - weights
        slope = 2 * (change @ gram) * scale * inside / max(float(unit), 1e-30)
        slope = (slope + regularizer_slope(gate, step / STEPS)) * (1.2 * sigmoid * (1 - sigmoid)) * ((gate > 0) & (gate < 1))
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        rate = RATE * np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
        variable = (variable - rate * first / (np.sqrt(second) + 1e-8)).astype(np.float32)
    up = 1.2 / (1 + np.exp(-variable)) - 0.1 > 0.5
    levels: Floats = np.clip(floor + up + zero_point, grid.lowest, grid.highest)
    return levels


def regularizer_slope(gate: Floats, progress: float) -> Floats | float:
    """The derivative of WEIGHT * (1 - |2 h - 1|^beta) by h."""
    if progress < WARM_UP:
        return 0.0
    beta = LAST_BETA + (FIRST_BETA - LAST_BETA) * 0.5 * (1 + np.cos(np.pi * (progress - WARM_UP) / (1 - WARM_UP)))
    away = 2 * gate - 1
    slope: Floats = -2 * WEIGHT * beta * np.sign(away) * np.abs(away) ** (beta - 1)
    return slope
