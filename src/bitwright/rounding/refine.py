"""Refine: GPTQ, then least-squares scales and codes in turn, by GPTQ again and by coordinate descent. Needs second moments.

All minimise trace((V - W) H (V - W)^T), V the weights that the codes stand for. Descent moves one column after the other
to the level nearest to what is best for it with all others where they are,

    v_j <- Q(v_j - r_j / H_jj),   r = (V - W) H

and for given codes with levels z (zero points taken off) a row's scales s solve (sum over i in g, j in h of z_i H_ij z_j)
s_h = sum over i in g of z_i (H w)_i, one equation a group g. GPTQ cannot go back to a column; this can. Coordinate descent
for quantization: QuantEase, Behdin et al. 2023, arXiv:2309.01885; the refit of scales is that of GuidedQuant's LNQ
(arXiv:2505.07004) for even grids. Cost: about twice GPTQ's for every sweep.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitwright import _native
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

Floats = npt.NDArray[np.float32]

RESTARTS, ROUNDS, SWEEPS = 2, 2, 2  # GPTQ again on refitted scales; then descents of so many sweeps on refitted scales
REFITTED_SCALES = ("fp32", "fp16", "bf16")  # types whose every value can be chosen by itself


def refine(weights: Floats, scheme: Scheme, fit: Fit, moments: Moments) -> QTensor:
    """(rows, columns) float32 -> QTensor of the same shape. Raises as `nearest` does."""
    values = require_finite(weights)
    if not FORMATS[scheme.format].scaled:
        return nearest(weights, scheme, fit)
    grids = Grids.fitted(values, scheme, fit)
    return refined(values, grids, compensate(values, grids, moments), moments)


def refined(weights: Floats, grids: Grids, codes: Codes, moments: Moments) -> QTensor:
    """Codes and grids of no larger error than those given, row by row."""
    gram: Floats = moments.damped.astype(np.float32)
    best = row_errors(weights, grids, codes, gram)
    for step in range(RESTARTS + ROUNDS):
        new_grids = refitted(weights, grids, codes, gram)
        again = step < RESTARTS
        new_codes = compensate(weights, new_grids, moments) if again else descend(weights, new_grids, codes, gram)
        error = row_errors(weights, new_grids, new_codes, gram)
        all_or_none = grids.scheme.group == -1  # one grid for all rows
        better = np.full(len(error), error.sum() < best.sum()) if all_or_none else error < best
        codes = np.where(better[:, None], new_codes, codes)
        grids = grids.with_scale(np.where(better[:, None], new_grids.scale, grids.scale))
        best = np.where(better, error, best)
    return grids.tensor(codes)


def row_errors(weights: Floats, grids: Grids, codes: Codes, gram: Floats) -> Floats:
    """(rows,) (v - w) H (v - w)^T."""
    change = grids.values(codes) - weights
    errors: Floats = np.einsum("ij,ij->i", change @ gram, change)
    return errors


def refitted(weights: Floats, grids: Grids, codes: Codes, gram: Floats) -> Grids:
    """The scales of least error for these codes, as far as the scheme lets each be chosen by itself."""
    if grids.scheme.scale not in REFITTED_SCALES or grids.scheme.group == -1:
        return grids
    levels = grids.levels(codes)
    rows, groups = grids.scale.shape
    size = weights.shape[1] // groups
    normal = np.empty((rows, groups, groups))
    for g in range(groups):
        part = slice(g * size, (g + 1) * size)
        reached = (levels[:, part] @ gram[part]) * levels
        normal[:, g] = reached.reshape(rows, groups, size).sum(axis=2, dtype=np.float64)
    wanted = ((weights @ gram) * levels).reshape(rows, groups, size).sum(axis=2, dtype=np.float64)
    small = 1e-6 * np.einsum("rgg->rg", normal).max(axis=1) + 1e-30  # a group of zeros only leaves its scale open
    scale = grids.scale + np.linalg.solve(
        normal + small[:, None, None] * np.eye(groups), (wanted - np.einsum("rgh,rh->rg", normal, grids.scale))[..., None]
    ).squeeze(-1)
    try:
        rounded = round_scale(scale.astype(np.float32).reshape(-1), grids.scheme.scale).reshape(scale.shape)
    except SchemeError:  # beyond fp16: the fitted scales are not
        return grids
    return grids.with_scale(rounded)


def descend(weights: Floats, grids: Grids, codes: Codes, gram: Floats) -> Codes:
    """SWEEPS of coordinate descent from `codes`."""
    values = grids.values(codes)
    residuals = np.asarray((values - weights) @ gram, np.float32)
    if grids.uniform is None:
        return descend_reference(values, residuals, grids, gram)
    grid = grids.uniform
    moved: Codes = _native.descend(
        values, residuals, grids.scale, grids.zero_point, grids.group_of, grid.lowest, grid.highest, gram, SWEEPS
    )
    return moved


def descend_reference(values: Floats, residuals: Floats, grids: Grids, gram: Floats) -> Codes:
    """The slow twin: one column at a time. It serves the formats that have no even grid."""
    values, residuals = values.copy(), residuals.copy()
    codes = np.empty(values.shape, np.uint8)
    for _ in range(SWEEPS):
        for j in range(values.shape[1]):
            codes[:, j] = grids.encode(values[:, j] - residuals[:, j] / gram[j, j], j)
            value = grids.decode(codes[:, j], j)
            residuals += (value - values[:, j])[:, None] * gram[j]
            values[:, j] = value
    return codes
