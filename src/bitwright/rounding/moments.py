"""What error-compensating rounding knows of a layer's inputs, and the matrices that follow from it.

    H + damping * mean(diag H) * I = V V^T, V upper triangular;   U = V^-1, so that (H + ...)^-1 = U^T U
    P = alpha * triu(D U^T, 1) U                                  where the drift D of the inputs is known

all in the order in which columns are rounded: those with the largest inputs first, while there is most left to make up
for an error ("act order", Frantar's GPTQ code; with equal diagonals the order is the storage order).
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from bitwright.formats.hadamard import rotate_reference

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

SMALL = 96  # columns up to which a triangle is inverted at once


@dataclass(frozen=True, eq=False)
class Moments:
    """`gram` H and `cross` D are (columns, columns); see observers/gram.py. `damping` and `alpha` as above."""

    gram: Doubles
    cross: Doubles | None = None
    damping: float = 0.02
    alpha: float = 0.25

    @classmethod
    def identity(cls, columns: int) -> Moments:
        """Inputs of equal size that have nothing to do with each other: compensation then does nothing."""
        return cls(np.eye(columns), np.zeros((columns, columns)))

    def rotated(self, block: int) -> Moments:
        """The moments of R x, R the rotation of columns by blocks of `block` (formats/hadamard.py); 0 leaves them.

        They are kept, so that all that read one input share what follows from them.
        """
        if block == 0:
            return self
        if block not in self._rotated:
            cross = None if self.cross is None else conjugated(self.cross, block)
            self._rotated[block] = replace(self, gram=conjugated(self.gram, block), cross=cross)
        return self._rotated[block]

    @cached_property
    def _rotated(self) -> dict[int, Moments]:
        return {}

    @cached_property
    def order(self) -> npt.NDArray[np.intp]:
        """Columns in the order of rounding."""
        return np.argsort(-self.gram.diagonal(), kind="stable")

    @cached_property
    def damped(self) -> Doubles:
        """H with its diagonal raised, in storage order; the identity where no input was ever other than zero."""
        mean = float(self.gram.diagonal().mean())
        return self.gram + (self.damping * mean if mean > 0 else 1.0) * np.eye(len(self.gram))

    @cached_property
    def root(self) -> Doubles:
        """V, upper triangular, rows and columns in the order of rounding."""
        ordered = self.damped[np.ix_(self.order, self.order)]
        return np.ascontiguousarray(cholesky(ordered[::-1, ::-1])[::-1, ::-1])  # the factor of the reverse is lower

    @cached_property
    def factor(self) -> Floats:
        """U, upper triangular, rows and columns in the order of rounding."""
        return np.ascontiguousarray(inverse_upper(self.root), np.float32)

    @cached_property
    def drift(self) -> Floats | None:
        """P, strictly upper triangular, rows and columns in the order of rounding."""
        if self.cross is None:
            return None
        ordered = self.cross[np.ix_(self.order, self.order)]
        factor = self.factor.astype(np.float64)
        return np.ascontiguousarray(self.alpha * np.triu(ordered @ factor.T, 1) @ factor, np.float32)


def conjugated(matrix: Doubles, block: int) -> Doubles:
    """R M R, which is the second moments of R x where M is that of x."""
    return np.ascontiguousarray(rotate_reference(rotate_reference(matrix, block).T, block).T)


def cholesky(matrix: Doubles) -> Doubles:
    """The lower factor; by torch where it is there, which takes a third of numpy's time."""
    if importlib.util.find_spec("torch") is None:
        return np.asarray(np.linalg.cholesky(matrix), np.float64)
    import torch

    root: Doubles = torch.linalg.cholesky(torch.from_numpy(np.ascontiguousarray(matrix))).numpy()
    return root


def inverse_upper(triangle: Doubles) -> Doubles:
    """The inverse of an upper triangle, by halves: [[A, B], [0, C]]^-1 = [[A^-1, -A^-1 B C^-1], [0, C^-1]]."""
    n = len(triangle)
    if n <= SMALL:
        return np.triu(np.linalg.inv(triangle))
    half = n // 2
    result = np.zeros_like(triangle)
    result[:half, :half] = inverse_upper(triangle[:half, :half])
    result[half:, half:] = inverse_upper(triangle[half:, half:])
    result[:half, half:] = -result[:half, :half] @ triangle[:half, half:] @ result[half:, half:]
    return result
