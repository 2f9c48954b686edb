"""GPTAQ: GPTQ that also makes up for how far the inputs have drifted in the layers before. Needs the inputs' cross moments.

Li et al. 2025, arXiv:2504.02692. See gptq.py: each step adds w_j P_jk to the weights to come. P, in rounding/moments.py,
holds what the drift of input j costs, taken back through the inputs k that are left; alpha = .25 of it, since it is
measured on few data. Twice GPTQ's time: the float model's activations walk beside the quantized model's.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitwright.core import QTensor, Scheme
from bitwright.fitting import Fit
from bitwright.formats import FORMATS
from bitwright.formats.checks import require_finite
from bitwright.rounding.gptq import compensate
from bitwright.rounding.grids import Grids
from bitwright.rounding.moments import Moments
from bitwright.rounding.nearest import nearest


def gptaq(weights: npt.NDArray[np.float32], scheme: Scheme, fit: Fit, moments: Moments) -> QTensor:
    """(rows, columns) float32 -> QTensor of the same shape. Raises as `nearest` does."""
    values = require_finite(weights)
    if not FORMATS[scheme.format].scaled:
        return nearest(weights, scheme, fit)
    grids = Grids.fitted(values, scheme, fit)
    return grids.tensor(compensate(values, grids, moments, moments.drift))
