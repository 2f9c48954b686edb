"""Weight clustering: every weight becomes one of N values that its tensor, or its row, shares.

The centroids are found by k-means (fitting/kmeans.py) from one of three starts:

    linear    N even steps from the smallest to the largest weight
    density   N quantiles, at (i + 1/2) / N of the weights in order
    kmeans++  by chance, a weight being drawn in proportion to its squared distance from those drawn before; k-means++,
              Arthur & Vassilvitskii 2007

Han et al. 2016 (Deep Compression, arXiv:1510.00149) compare the first two and random ones. To keep what pruning made zero, the
centroid nearest to zero is put there and stays. As a scheme, over a scale, N is from 3 to 16: kmeans4-tensor, kmeans3-tensor-n6
(formats/codebook.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bitwright.errors import RecipeError
from bitwright.fitting.cells import Cells, Doubles
from bitwright.fitting.kmeans import kmeans
from bitwright.formats.checks import require_finite

Floats = npt.NDArray[np.float32]
MOST = 256  # centroids: codes are bytes


@dataclass(frozen=True, eq=False)
class Clustered:
    """`centroids` (1 or rows, N) float32, ascending; `codes` (rows, columns) uint8, places among them."""

    centroids: Floats
    codes: npt.NDArray[np.uint8]

    def dequantize(self) -> Floats:
        """(rows, columns) float32."""
        rows = np.arange(len(self.codes)) if len(self.centroids) > 1 else np.zeros(len(self.codes), np.intp)
        return self.centroids[rows[:, None], self.codes]


def cluster(weights: Floats, count: int, start: str = "kmeans++", by_row: bool = False, keep_zeros: bool = True) -> Clustered:
    """(rows, columns) -> `count` centroids for the tensor, or for each row, and the nearest one of each weight.

    Raises `RecipeError` for an unknown start and a count that is not from 2 to 256, `NonFiniteError` on NaN or infinity.
    """
    if start not in STARTS:
        raise RecipeError(f"unknown start {start!r}; choose from {', '.join(STARTS)}")
    if not 2 <= count <= MOST:
        raise RecipeError(f"the number of clusters is from 2 to {MOST}, not {count}")
    values = require_finite(weights).reshape(len(weights) if by_row else 1, -1)
    levels = np.stack([STARTS[start](np.sort(row.astype(np.float64)), count) for row in values])
    fixed = np.zeros(levels.shape, np.bool_)
    if keep_zeros:
        nearest_to_zero = np.abs(levels).argmin(axis=1)[:, None]
        np.put_along_axis(levels, nearest_to_zero, 0.0, axis=1)
        np.put_along_axis(fixed, nearest_to_zero, True, axis=1)
    centroids = kmeans(Cells.of(values, np.ones_like(values)), levels, fixed).astype(np.float32)
    codes = np.stack([nearest(row, own) for row, own in zip(values, centroids, strict=True)])
    return Clustered(centroids, codes.reshape(weights.shape))


def nearest(values: Floats, centroids: Floats) -> npt.NDArray[np.uint8]:
    """(values,) and (N,) ascending -> places of the nearest centroids, the lower one of a tie."""
    middle = (centroids[:-1].astype(np.float64) + centroids[1:]) / 2
    codes: npt.NDArray[np.uint8] = np.searchsorted(middle, values.astype(np.float64), side="left").astype(np.uint8)
    return codes


def nearest_reference(values: Floats, centroids: Floats) -> npt.NDArray[np.uint8]:
    """The slow twin of `nearest`: all distances."""
    distance = np.abs(values[:, None].astype(np.float64) - centroids[None, :])
    codes: npt.NDArray[np.uint8] = distance.argmin(axis=1).astype(np.uint8)
    return codes


def linear(values: Doubles, count: int) -> Doubles:
    """Ascending values -> even steps over their range."""
    return np.linspace(values[0], values[-1], count)


def density(values: Doubles, count: int) -> Doubles:
    """Ascending values -> as many of them to each centroid."""
    return np.asarray(np.quantile(values, (np.arange(count) + 0.5) / count))


def plus_plus(values: Doubles, count: int) -> Doubles:
    """Ascending values -> some of them, far apart; the same ones every time."""
    random = np.random.default_rng(0)
    chosen = [float(values[random.integers(len(values))])]
    squares = (values - chosen[0]) ** 2
    while len(chosen) < count:
        sums = squares.cumsum()
        place = int(np.searchsorted(sums, random.random() * sums[-1], side="right"))
        chosen.append(float(values[min(place, len(values) - 1)]))
        squares = np.minimum(squares, (values - chosen[-1]) ** 2)
    return np.sort(np.array(chosen))


STARTS: dict[str, Callable[[Doubles, int], Doubles]] = {"linear": linear, "density": density, "kmeans++": plus_plus}
