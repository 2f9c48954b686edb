"""Hessian-weighted MSE: the search of `mse`, with each column's error weighed by how large the layer's inputs are there.

The output error of a change E of the weights is trace(E H E^T) a token, H the second moments of the inputs. Its diagonal alone
makes that a sum over columns of H_jj E_ij^2 (OBD, LeCun et al. 1990; so used for GGUF's importance matrices). With rotated
columns, H is that of the rotated inputs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitwright.core import QParams, Scheme
from bitwright.fitting.finish import finish
from bitwright.fitting.measure import Measure
from bitwright.fitting.mse import mse, search

Floats = npt.NDArray[np.float32]


class HessianFit:
    """`mse` for one layer: called with weights (rows, columns) and a scheme, as every fitting is."""

    def __init__(self, importance: Floats) -> None:
        """`importance` (columns,), the diagonal of H, at least 0. Where all are equal, they change nothing."""
        values = np.ascontiguousarray(importance, np.float32)
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise ValueError("importances are finite and not negative")
        self.importance = values if (values != values[0]).any() else None

    def __call__(self, weights: Floats, scheme: Scheme) -> QParams:
        """Raises `SchemeError` where a scale is beyond its type's range."""
        if self.importance is None:
            return mse(weights, scheme)
        groups = weights.reshape(-1, scheme.group_size(weights.shape))
        measure = Measure(scheme, (weights.shape[0], weights.shape[1]), self.importance)
        return finish(groups, search(groups, measure), measure)
