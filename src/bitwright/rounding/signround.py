"""SignRound: learn small shifts of weights and scales by the signs of gradients alone. Needs second moments.

AutoRound, Cheng et al. 2023, arXiv:2309.05516. Each weight has a shift V in [-.5, .5], each group a factor a in [.5, 1] on
its scale:

    W~ = a s (clip(rint(W / (a s) + V) + zero_point) - zero_point),    V -= rate sign(dL/dV),   a -= rate sign(dL/da)

for 200 steps with a rate that falls linearly from 1/200 to 0; rounding passes gradients on as if it were not there. L is
the layer's error trace((W~ - W) H (W~ - W)^T), where the paper takes a block's. Each row keeps the best it passed through.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitwright.core import QTensor, Scheme
from bitwright.fitting import Fit
from bitwright.formats.scales import round_scale
from bitwright.rounding.even_steps import learned
from bitwright.rounding.grids import Grids
from bitwright.rounding.moments import Moments
from bitwright.rounding.refit import REFITTED_SCALES

Floats = npt.NDArray[np.float32]

STEPS = 200
LEAST_FACTOR = 0.5


def signround(weights: Floats, scheme: Scheme, fit: Fit, moments: Moments) -> QTensor:
    """(rows, columns) float32 -> QTensor of the same shape.

    Raises as `nearest` does, and `SchemeError` for a format given by a table of levels.
    """
    gram: Floats = moments.damped.astype(np.float32)
    return learned(weights, scheme, fit, lambda values, grids, _: descended(values, grids, gram))


def descended(weights: Floats, grids: Grids, gram: Floats) -> QTensor:
    """From the fitted grids, whose scales move only where each can be chosen by itself."""
    grid = grids.uniform
    assert grid is not None
    scales_move = grids.scheme.scale in REFITTED_SCALES and grids.scheme.group != -1
    zero_point = grids.zero_point[:, grids.group_of]
    starts = np.flatnonzero(np.diff(grids.group_of, prepend=-1))
    shift, factor = np.zeros_like(weights), np.ones_like(grids.scale)
    best = np.full(len(weights), np.inf, np.float32)
    codes, best_scale = np.zeros(weights.shape, np.uint8), grids.scale
    for step in range(STEPS):
        group_scale = grids.scale
        if scales_move:
            group_scale = round_scale((grids.scale * factor).reshape(-1), grids.scheme.scale).reshape(factor.shape)
        scale = group_scale[:, grids.group_of]
        level = np.rint(weights / scale + shift) + zero_point
        kept = np.clip(level, grid.lowest, grid.highest)
        change = (kept - zero_point) * scale - weights
        slope = change @ gram  # half the derivative by W~; its sign is all that counts
        error = np.einsum("ij,ij->i", slope, change)
        better = error < best if grids.scheme.group != -1 else np.full(len(best), error.sum() < best.sum())
        best = np.where(better, error, best)
        codes = np.where(better[:, None], (kept - grid.lowest).astype(np.uint8), codes)
        best_scale = np.where(better[:, None], group_scale, best_scale)
        inside = level == kept
        by_scale = slope * (kept - zero_point - np.where(inside, weights / scale, 0)) * np.sign(scale)
        rate = np.float32((1 - step / STEPS) / STEPS)
        shift = np.clip(shift - rate * np.sign(slope * scale * inside), -0.5, 0.5)
        if scales_move:
            factor = np.clip(factor - rate * np.sign(np.add.reduceat(by_scale, starts, axis=1)), LEAST_FACTOR, 1)
    return grids.with_scale(best_scale).tensor(codes)
