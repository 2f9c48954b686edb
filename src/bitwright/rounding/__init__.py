"""Which code each weight gets: `round_weights(weights, scheme, fit) -> QTensor`, one row a method."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bitwright.core import QTensor, Scheme
from bitwright.fitting import Fit
from bitwright.rounding.nearest import nearest

Rounding = Callable[[npt.NDArray[np.float32], Scheme, Fit], QTensor]

ROUNDING: dict[str, Rounding] = {"nearest": nearest}
