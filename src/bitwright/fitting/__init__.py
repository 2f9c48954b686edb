"""How a grid is picked: from a tensor's groups and a scheme to QParams.

Every fitting has one signature, `fit(groups, scheme) -> QParams`, groups being (groups, group size) float32.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bitwright.core import QParams, Scheme
from bitwright.fitting.hqq import hqq
from bitwright.fitting.minmax import minmax
from bitwright.fitting.mse import mse

Fit = Callable[[npt.NDArray[np.float32], Scheme], QParams]

FITTING: dict[str, Fit] = {"minmax": minmax, "mse": mse, "hqq": hqq}
