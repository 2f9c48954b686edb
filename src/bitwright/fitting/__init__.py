"""How a grid is picked: from a matrix and a scheme to QParams.

Every fitting has one signature, `fit(weights, scheme) -> QParams`, weights being (rows, columns) float32. Rows never look
at each other unless the scheme's granularity is the tensor.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bitwright.core import QParams, Scheme
from bitwright.fitting.minmax import minmax
from bitwright.fitting.mse import mse

Fit = Callable[[npt.NDArray[np.float32], Scheme], QParams]

FITTING: dict[str, Fit] = {"minmax": minmax, "mse": mse}
