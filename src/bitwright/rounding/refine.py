"""Refine: GPTQ, then least-squares grids and codes in turn, by GPTQ again and by coordinate descent. Needs second moments.

All minimise trace((V - W) H (V - W)^T), V the weights that the codes stand for. Descent moves one column after the other
to the level nearest to what is best for it with all others where they are,

    v_j <- Q(v_j - r_j / H_jj),   r = (V - W) H

and scales and learned levels are refitted as refit.py says. GPTQ cannot go back to a column; this can. Coordinate descent
for quantization: QuantEase, Behdin et al. 2023, arXiv:2309.01885. Cost: about twice GPTQ's for every sweep.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitwright import _native
from bitwright.core import QTensor, Scheme
from bitwright.fitting import Fit
from bitwright.formats import FORMATS
from bitwright.formats.checks import require_finite
from bitwright.rounding.gptq import compensate
from bitwright.rounding.grids import Codes, Grids
from bitwright.rounding.moments import Moments
from bitwright.rounding.nearest import nearest
from bitwright.rounding.refit import refitted, relearned

Floats = npt.NDArray[np.float32]

RESTARTS, ROUNDS, SWEEPS = 2, 2, 2  # GPTQ again on refitted grids; then descents of so many sweeps on refitted scales


def refine(weights: Floats, scheme: Scheme, fit: Fit, moments: Moments) -> QTensor:
    """(rows, columns) float32 -> QTensor of the same shape. Raises as `nearest` does."""
    values = require_finite(weights)
    if not FORMATS[scheme.format].scaled:
        return nearest(weights, scheme, fit)
    grids = Grids.fitted(values, scheme, fit)
    return refined(values, grids, compensate(values, grids, moments), moments)


def refined(weights: Floats, grids: Grids, codes: Codes, moments: Moments) -> QTensor:
    """Codes and grids of no larger error than those given, row by row; where rows share a grid or its levels, in all."""
    gram: Floats = moments.damped.astype(np.float32)
    best = row_errors(weights, grids, codes, gram)
    for step in range(RESTARTS + ROUNDS):
        again = step < RESTARTS
        levels = relearned(weights, grids, codes, gram) if again else grids
        new_grids = refitted(weights, levels, codes, gram)
        new_codes = compensate(weights, new_grids, moments) if again else descend(weights, new_grids, codes, gram)
        error = row_errors(weights, new_grids, new_codes, gram)
        all_or_none = grids.scheme.group == -1 or (again and grids.params.table is not None and len(grids.params.table) == 1)
        better = np.full(len(error), error.sum() < best.sum()) if all_or_none else error < best
        codes, best = np.where(better[:, None], new_codes, codes), np.where(better, error, best)
        grids = (new_grids if better.all() else grids) if all_or_none else grids.taking(new_grids, better)
    return grids.tensor(codes)


def row_errors(weights: Floats, grids: Grids, codes: Codes, gram: Floats) -> Floats:
    """(rows,) (v - w) H (v - w)^T."""
    change = grids.values(codes) - weights
    errors: Floats = np.einsum("ij,ij->i", change @ gram, change)
    return errors


def descend(weights: Floats, grids: Grids, codes: Codes, gram: Floats) -> Codes:
    """SWEEPS of coordinate descent from `codes`."""
    values = grids.values(codes)
    residuals = np.asarray((values - weights) @ gram, np.float32)
    tables, low, high = grids.native
    moved: Codes = _native.descend(
        values, residuals, grids.scale, grids.zero_point, grids.group_of, low, high, gram, SWEEPS, tables
    )
    return moved


def descend_reference(values: Floats, residuals: Floats, grids: Grids, gram: Floats) -> Codes:
    """The slow twin: one column at a time."""
    values, residuals = values.copy(), residuals.copy()
    codes = np.empty(values.shape, np.uint8)
    for _ in range(SWEEPS):
        for j in range(values.shape[1]):
            codes[:, j] = grids.encode(values[:, j] - residuals[:, j] / gram[j, j], j)
            value = grids.decode(codes[:, j], j)
            residuals += (value - values[:, j])[:, None] * gram[j]
            values[:, j] = value
    return codes
