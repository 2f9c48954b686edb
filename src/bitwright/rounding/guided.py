"""Guided: refine, with tokens weighed by how much the model's answers depend on them. Needs the weighed moments of inputs.

The moments are H = mean of s_t x_t x_t^T, s_t the squared gradient of the model's log-probabilities by the layer's output at
token t (calibration/guidance.py): errors are then kept small where they would reach the end, after GuidedQuant, Kim et al.
2025, arXiv:2505.07004. What is done with H is refine.py's; a choice's `guidance` has it done by other methods.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitwright.core import QTensor, Scheme
from bitwright.fitting import Fit
from bitwright.rounding.moments import Moments
from bitwright.rounding.refine import refine


def guided(weights: npt.NDArray[np.float32], scheme: Scheme, fit: Fit, moments: Moments) -> QTensor:
    """(rows, columns) float32 -> QTensor of the same shape. Raises as `nearest` does."""
    return refine(weights, scheme, fit, moments)
