"""GPTQ: round columns one by one, pushing each error onto those not yet rounded. Needs the inputs' second moments.

Frantar et al. 2022, arXiv:2210.17323. With U from rounding/moments.py, scales fixed first, and columns in the order of
their inputs' size:

    q = Q(w_j);   e = (w_j - q) / U_jj;   w_k -= e U_jk for all later k

which is what minimises trace((W - Q) H (W - Q)^T), given the columns rounded so far. With a drift P, w_k += w_j P_jk, too:
see gptaq.py. Cost: one Cholesky for each input, and rows * columns^2 / 2 multiply-adds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitwright import _native
from bitwright.core import QTensor, Scheme
from bitwright.fitting import Fit
from bitwright.formats import FORMATS
from bitwright.formats.checks import require_finite
from bitwright.rounding.grids import Codes, Grids
from bitwright.rounding.moments import Moments
from bitwright.rounding.nearest import nearest

Floats = npt.NDArray[np.float32]


def gptq(weights: Floats, scheme: Scheme, fit: Fit, moments: Moments) -> QTensor:
    """(rows, columns) float32 -> QTensor of the same shape. Raises as `nearest` does."""
    values = require_finite(weights)
    if not FORMATS[scheme.format].scaled:
        return nearest(weights, scheme, fit)
    grids = Grids.fitted(values, scheme, fit)
    return grids.tensor(compensate(values, grids, moments))


def compensate(weights: Floats, grids: Grids, moments: Moments, drift: Floats | None = None) -> Codes:
    """(rows, columns) codes on the given grids."""
    order, (tables, low, high) = moments.order, grids.native
    codes = np.empty(weights.shape, np.uint8)
    codes[:, order] = _native.compensate(
        np.ascontiguousarray(weights[:, order]),
        grids.scale,
        grids.zero_point,
        np.ascontiguousarray(grids.group_of[order]),
        low,
        high,
        moments.factor,
        drift,
        tables,
    )
    return codes


def compensate_reference(weights: Floats, grids: Grids, moments: Moments, drift: Floats | None = None) -> Codes:
    """The slow twin of `compensate`: the textbook's loop."""
    order, factor = moments.order, moments.factor
    left = weights[:, order].copy()  # what is still to be rounded, errors made up for
    codes = np.empty(weights.shape, np.uint8)
    for j, column in enumerate(order):
        w = left[:, j].copy()
        codes[:, column] = grids.encode(w, column)
        error = (w - grids.decode(codes[:, column], column)) / factor[j, j]
        left[:, j + 1 :] -= error[:, None] * factor[j, j + 1 :]
        if drift is not None:
            left[:, j + 1 :] += w[:, None] * drift[j, j + 1 :]
    return codes
