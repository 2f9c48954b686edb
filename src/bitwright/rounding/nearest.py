"""Nearest rounding: each weight takes the level closest to it, ties to even. No data, no interplay between weights."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitwright.core import QParams, QTensor, Scheme
from bitwright.fitting import Fit
from bitwright.fitting.measure import Measure
from bitwright.formats import FORMATS
from bitwright.formats.checks import require_finite
from bitwright.formats.uniform import Uniform


def nearest(weights: npt.NDArray[np.float32], scheme: Scheme, fit: Fit) -> QTensor:
    """(rows, columns) float32 -> QTensor of the same shape.

    Raises `NonFiniteError` on NaN or infinity, `SchemeError` where the group does not divide the row.
    """
    values = require_finite(weights)
    if not scheme.scaled:
        return QTensor(FORMATS[scheme.format].encode(values), None, scheme)
    groups, params = values.reshape(-1, scheme.group_size(values.shape)), fit(values, scheme)
    codes = Measure(scheme, (values.shape[0], values.shape[1])).encode(groups, params)
    return QTensor(codes.reshape(values.shape), params, scheme)


def encode_reference(groups: npt.NDArray[np.float32], params: QParams, grid: Uniform) -> npt.NDArray[np.uint8]:
    """The slow twin of the native encoder, in plain numpy."""
    levels = np.rint(groups / params.scale[:, None])
    if params.zero_point is not None:
        levels = levels + params.zero_point[:, None]
    codes: npt.NDArray[np.uint8] = (np.clip(levels, grid.lowest, grid.highest) - grid.lowest).astype(np.uint8)
    return codes
