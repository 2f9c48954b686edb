"""GPTQ-aware scales: of several scales a group, the one under which GPTQ's own errors are smallest. Needs second moments.

GPTQ rounds not the weights but what errors have made of them, w~_j, so a scale fitted to the weights is not the best for it. With
e_j = (w~_j - q_j) / U_jj of gptq.py a row's error (Q - W) H (Q - W)^T is the sum of all e_j^2, and since W - Q = E U

    E = (W - Q) V,   V = U^-1                         columns in the order of rounding

tells from the codes alone how much of it came from each group. All groups' scales times a factor give one run of GPTQ for
each factor; each group takes the factor of its least sum of e_j^2, and since that changes what later groups get to
round, this is done again around the scales found. Each row keeps the best it has seen, its first scales among them.

GPTQ's objective: Frantar et al. 2022, arXiv:2210.17323; its use to choose scales follows Samsung's TICO (pull request 761).
Cost: 12 runs of GPTQ, and as many products by V.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitwright.core import QTensor, Scheme
from bitwright.errors import SchemeError
from bitwright.fitting import Fit
from bitwright.formats import FORMATS
from bitwright.formats.checks import require_finite
from bitwright.formats.scales import round_scale
from bitwright.rounding.gptq import compensate
from bitwright.rounding.grids import Codes, Grids
from bitwright.rounding.moments import Moments
from bitwright.rounding.nearest import nearest
from bitwright.rounding.refit import REFITTED_SCALES

Floats = npt.NDArray[np.float32]

FACTORS = ((0.82, 0.88, 0.94, 1.0, 1.06, 1.12), (0.97, 1.0, 1.03))  # round by round, on the scales of the round before


def gptq_scales(weights: Floats, scheme: Scheme, fit: Fit, moments: Moments) -> QTensor:
    """(rows, columns) float32 -> QTensor of the same shape. Raises as `nearest` does."""
    values = require_finite(weights)
    if not FORMATS[scheme.format].scaled:
        return nearest(weights, scheme, fit)
    grids, codes = searched(values, Grids.fitted(values, scheme, fit), moments)
    return grids.tensor(codes)


def searched(weights: Floats, grids: Grids, moments: Moments) -> tuple[Grids, Codes]:
    """The best grids found and their codes; those given where the scheme lets no scale be chosen by itself."""
    best_codes = compensate(weights, grids, moments)
    if grids.scheme.scale not in REFITTED_SCALES:
        return grids, best_codes
    best, least = grids, group_errors(weights, grids, best_codes, moments)
    for factors in FACTORS:
        start = best.scale
        errors, scales = [], []
        for factor in factors:
            tried = scaled(best, start * np.float32(factor))
            errors.append(group_errors(weights, tried, compensate(weights, tried, moments), moments))
            scales.append(tried.scale)
        choice = picked(errors, grids.scheme)
        chosen = scaled(best, np.choose(choice, scales))
        codes = compensate(weights, chosen, moments)
        found = group_errors(weights, chosen, codes, moments)
        better = found.sum(axis=1) < least.sum(axis=1)
        if grids.scheme.group == -1:  # one grid for all rows
            better[:] = found.sum() < least.sum()
        best = best.taking(chosen, better)
        best_codes, least = np.where(better[:, None], codes, best_codes), np.where(better[:, None], found, least)
    return best, best_codes


def group_errors(weights: Floats, grids: Grids, codes: Codes, moments: Moments) -> Floats:
    """(rows, groups) sums of e_j^2."""
    order, columns = moments.order, grids.group_of[moments.order]
    missed = (weights - grids.values(codes))[:, order]
    squares = np.square(missed @ moments.root.astype(np.float32))
    return np.stack([squares[:, columns == group].sum(axis=1) for group in range(int(columns.max()) + 1)], axis=1)


def picked(errors: list[Floats], scheme: Scheme) -> npt.NDArray[np.intp]:
    """(rows, groups): which candidate is best for each group, or for the whole tensor."""
    stacked = np.stack(errors)
    if scheme.group == -1:
        return np.full(errors[0].shape, int(stacked.sum(axis=(1, 2)).argmin()), np.intp)
    return np.asarray(stacked.argmin(axis=0), np.intp)


def scaled(grids: Grids, scale: Floats) -> Grids:
    """The same grids at these scales as they can be stored; as they are where one is beyond its type."""
    try:
        rounded = round_scale(np.ascontiguousarray(scale).reshape(-1), grids.scheme.scale)
    except SchemeError:
        return grids
    return grids.with_scale(rounded.reshape(scale.shape))
