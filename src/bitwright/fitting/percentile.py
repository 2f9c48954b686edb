"""Percentile: the grid spans all values but the largest thousandth, which are clipped.

The cut is the 99.9th percentile of |x| in each group, linear between the two values next to it; with few values in a group
that is close to min-max. For tensors and channels with lone outliers (Wu et al. 2020, arXiv:2004.09602, section 4).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitwright.core import QParams, Scheme
from bitwright.fitting.finish import finish
from bitwright.fitting.measure import Measure
from bitwright.fitting.minmax import params_of_range

SHARE = 99.9

Floats = npt.NDArray[np.float32]


def percentile(weights: Floats, scheme: Scheme) -> QParams:
    """(rows, columns) float32 -> one scale (and zero point) a group."""
    groups = weights.reshape(-1, scheme.group_size(weights.shape))
    cut = np.percentile(np.abs(groups), SHARE, axis=1).astype(np.float32)
    return clipped(groups, cut, scheme, (weights.shape[0], weights.shape[1]))


def clipped(groups: Floats, cut: Floats, scheme: Scheme, shape: tuple[int, int]) -> QParams:
    """Grids that span each group's values as far as its cut."""
    low, high = np.maximum(groups.min(axis=1), -cut), np.minimum(groups.max(axis=1), cut)
    return finish(groups, params_of_range(low, high, scheme), Measure(scheme, shape))
