"""What was seen of one input, and which layers read it: all that transforms know of the data.

With x the rows of the input, one a token, of the float model on calibration text:

    gram      H = mean of x x^T, from which trace(E H E^T) is the squared output error of a weight error E
    mean      of each column
    size      mean |x| of each column
    largest   max |x| of each column
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Inputs:
    """`roles` of `layer` read this input; -1 is the head's. `gram` is (columns, columns), the others are (columns,)."""

    layer: int
    roles: tuple[str, ...]
    gram: Doubles
    mean: Doubles
    size: Doubles
    largest: Doubles
