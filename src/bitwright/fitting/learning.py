"""Tables that are learned: weights over their scales, each counting by the square of its scale, go to a learner."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bitwright.fitting.cells import Cells, Doubles
from bitwright.fitting.compander import compander
from bitwright.fitting.kmeans import kmeans
from bitwright.fitting.measure import Measure
from bitwright.fitting.piecewise import piecewise
from bitwright.formats import FORMATS
from bitwright.formats.codebook import normal_levels
from bitwright.formats.table import WHOLE, Table

Floats = npt.NDArray[np.float32]
Learner = Callable[[Cells, Doubles], Doubles]  # values and (tables, levels) to start from -> (tables, levels)

ENOUGH = 1 << 15  # values to learn one table from: 2000 a level; of more, every so many is taken

LEARNERS: dict[str, Learner] = {"kmeans": kmeans, "piecewise": piecewise, "compander": compander}


def learn_table(groups: Floats, scale: Floats, measure: Measure) -> Floats | None:
    """(tables, 2^bits) ascending, rounded as they are stored and with 0 among them; None for a format whose levels are given.

    Of a scheme with a number of levels, the last one is there as often as is missing.
    Learners see weights and levels over the format's largest level: most of them lie between -1 and 1.
    """
    format, scheme = FORMATS[measure.scheme.format], measure.scheme
    if not isinstance(format, Table) or not format.learned:
        return None
    tables = scheme.tables(measure.shape)
    weights = np.broadcast_to(scale[:, None] ** 2 * measure.weights_of(groups), groups.shape)
    x = groups / (scale * np.float32(format.largest))[:, None]
    if tables == 1 and groups.size > ENOUGH:
        step = -(-groups.size // ENOUGH)
        x, weights = (array.reshape(-1)[:: step + (step % 2 == 0)][None, :] for array in (x, weights))
    x, weights = x.reshape(tables, -1), weights.reshape(tables, -1)
    start = np.repeat(_start(format, scheme.levels), tables, axis=0)
    learned = LEARNERS[format.learner](Cells.of(x, weights), start) * format.largest
    learned = np.pad(learned, ((0, 0), (0, (1 << format.bits) - learned.shape[1])), mode="edge")
    if format.whole:
        return np.clip(np.rint(learned), -WHOLE, WHOLE).astype(np.float32)
    return learned.astype(np.float16).astype(np.float32)


def _start(format: Table, levels: int) -> Doubles:
    """(1, levels) from -1 to 1, from which learning starts; 0 for the format's own."""
    return np.array([normal_levels(levels)]) if levels else format.table.astype(np.float64) / format.largest
