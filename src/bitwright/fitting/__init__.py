"""How a grid is picked: from a matrix and a scheme to QParams.

Every fitting has one signature, `fit(weights, scheme) -> QParams`, weights being (rows, columns) float32. Rows never look
at each other unless the scheme says so. CALIBRATED ones are made for a layer, from the second moments of its inputs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bitwright.core import QParams, Scheme
from bitwright.fitting.entropy import entropy
from bitwright.fitting.hessian import HessianFit
from bitwright.fitting.hqq import hqq
from bitwright.fitting.minmax import minmax
from bitwright.fitting.mse import mse
from bitwright.fitting.percentile import percentile

Fit = Callable[[npt.NDArray[np.float32], Scheme], QParams]

FITTING: dict[str, Fit] = {"minmax": minmax, "mse": mse, "percentile": percentile, "entropy": entropy, "hqq": hqq}
CALIBRATED: dict[str, Callable[[npt.NDArray[np.float32]], Fit]] = {"hessian": HessianFit}  # the diagonal of H -> a fitting
