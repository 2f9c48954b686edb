"""Second moments of a layer's inputs: all that error-compensating rounding needs to know of the data.

With x~ the inputs as the quantized model makes them and x as the float model does, both (tokens, columns):

    gram  H = mean over tokens of s_t x~_t x~_t^T          cross  D = mean over tokens of s_t (x_t - x~_t) x~_t^T

The layer's squared output error for a change E of its weights is trace(E H E^T) a token. D says how far the inputs have
drifted already (asymmetric calibration, GPTAQ, Li et al. 2025, arXiv:2504.02692). s_t weighs tokens: 1, or how much the
model's loss depends on this token's output (end-loss guidance, GuidedQuant, Kim et al. 2025, arXiv:2505.07004).

Products are formed in float32 over a few thousand tokens at a time and summed up in float64, so that two observers
added give what one that saw all data would, up to rounding. Memory: one (columns, columns) matrix, two with D.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from bitwright.errors import NonFiniteError

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

CHUNK = 8192  # tokens whose products are summed in float32


def transposed_product(a: Floats, b: Floats) -> Floats:
    """A^T B of (tokens, columns) matrices; numpy sees where they are the same one and does half the work.

    Of a matrix with itself only what is on and above the diagonal is looked at.
    """
    product: Floats = a.T @ b
    return product


@dataclass
class Gram:
    """The running sums. `update` and `+` are all that changes them. `product` is who multiplies."""

    columns: int
    asymmetric: bool = False
    product: Callable[[Floats, Floats], Floats] = transposed_product

    def __post_init__(self) -> None:
        self.count = 0.0  # tokens seen, or the sum of their weights
        self._gram = np.zeros((self.columns, self.columns))
        self._cross = np.zeros((self.columns, self.columns)) if self.asymmetric else None

    def update(self, x: Floats, original: Floats | None = None, weights: Floats | None = None) -> None:
        """Take in `x` (tokens, columns) float32; `original`, of the same shape, where D is wanted; `weights` (tokens,) >= 0.

        Raises `NonFiniteError` on NaN or infinity, which would spoil all that was summed before.
        """
        assert (original is not None) == self.asymmetric
        for begin in range(0, len(x), CHUNK):
            part = slice(begin, begin + CHUNK)
            self._add(x[part], None if original is None else original[part], None if weights is None else weights[part])

    def _add(self, x: Floats, original: Floats | None, weights: Floats | None) -> None:
        scaled = x if weights is None else x * np.sqrt(weights)[:, None]
        self._take(self.product(scaled, scaled))
        if self._cross is not None and original is not None:
            drift = original - x if weights is None else (original - x) * weights[:, None]
            self._cross += self.product(drift, x)
        self.count += float(len(x) if weights is None else weights.sum(dtype=np.float64))

    def take(self, product: Floats, count: float) -> None:
        """Take in a sum of s_t x_t x_t^T, of which what is on and above the diagonal is looked at; `count` is the sum of s_t.

        Raises `NonFiniteError` as `update` does.
        """
        assert not self.asymmetric
        self._take(product)
        self.count += count

    def _take(self, product: Floats) -> None:
        if not np.isfinite(product.diagonal()).all():
            raise NonFiniteError("a layer's inputs are NaN or infinite on the calibration text; mend the model")
        self._gram += product

    def __add__(self, other: Self) -> Self:
        """What one observer would hold that had seen both."""
        assert self.columns == other.columns and self.asymmetric == other.asymmetric
        total = type(self)(self.columns, self.asymmetric, self.product)
        total.count = self.count + other.count
        total._gram = self._gram + other._gram
        if self._cross is not None and other._cross is not None:
            total._cross = self._cross + other._cross
        return total

    @property
    def gram(self) -> Doubles:
        """H, (columns, columns), exactly symmetric."""
        upper = np.triu(self._gram) / max(self.count, np.finfo(np.float64).tiny)
        return upper + np.triu(upper, 1).T

    @property
    def cross(self) -> Doubles | None:
        """D, (columns, columns), or None where it was not asked for."""
        return None if self._cross is None else self._cross / max(self.count, np.finfo(np.float64).tiny)
