"""Each matrix under its real inputs: the error of its output, and it and those inputs on the grids that they are rounded to.

One forward pass of the unquantized model shows every input x (calibration/forward.py). From H = mean x x^T follows the error
of the layer's output (metrics.py); the engine rounds x, turned first where the matrix's columns are,

    codes = round(x / s),  s = max |x| / L,  L = 127 with int8 activations and 32384 with int16 ones

so x / s is what lies on the whole numbers from -L to L. The maximum is that of the token where columns are turned, and else,
as for the head, that of each 32 columns of it (docs/engine.md). A peak at zero with thin tails says that few levels are used:
one large value stretches the grid for all others that share its scale.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.analysis.metrics import Histogram, TensorMetrics, tensor_metrics, weight_histogram
from bitwright.calibration.decoder import product_dtype, transposed_product
from bitwright.calibration.forward import Site, forward
from bitwright.calibration.sequential import rows_of
from bitwright.formats.hadamard import rotate
from bitwright.models.base import LanguageModel, Packed
from bitwright.observers.gram import Gram
from bitwright.quantization import QuantizedModel
from bitwright.quantization.matrix import THREADS

Floats = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]
Counts = npt.NDArray[np.int64]

BINS, WEIGHT_BINS = 127, 96
LARGEST_CODES = {"int8": 127, "int16": 127 * 254 + 126}  # of the engine's activations; fp32 ones lie on no grid
SCALE_COLUMNS = 32  # that share a scale where a token has several
Grid = tuple[int, int]  # columns in a block of the rotation, columns that share a scale; 0 for none, and for all


@dataclass(frozen=True, eq=False)
class Seen:
    """A stored tensor's figures; `weights` on their grid, None in full precision; `activations` (BINS,) counts inputs between
    the outermost codes, None where nothing is multiplied.
    """

    tensor: str
    metrics: TensorMetrics
    weights: Histogram | None
    activations: Counts | None


def counts_on_the_grid(counts: Counts, activations: str) -> dict[str, Any]:
    """(BINS,) counts between the outermost codes, as a report's document has them; in shares of the largest value for fp32."""
    largest = LARGEST_CODES.get(activations)
    edges = [float(f"{edge:.6g}") for edge in np.linspace(-(largest or 1), largest or 1, BINS + 1)]
    grid = {} if largest is None else {"levels": [-largest, largest], "level_count": 2 * largest + 1}
    return {"edges": edges, "counts": counts.tolist()} | grid


def input_grid(rotation: int, role: str) -> Grid:
    """How the engine rounds what the matrix of this role is multiplied with."""
    return rotation, 0 if rotation and role != "head" else SCALE_COLUMNS


def seen_inputs(model: LanguageModel, quantized: QuantizedModel, windows: Tokens) -> Iterator[Seen]:
    """Every matrix of the model once, in the order of computation; what is only looked up last. `windows` (windows, tokens).

    Cores take matrices while the model goes on; as many as wait for them hold their inputs' moments.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        waiting = deque[Future[Seen]]()
        for work in _seen_each(model, quantized, windows):
            waiting.append(pool.submit(work))
            while len(waiting) > 2 * THREADS:
                yield waiting.popleft().result()
        yield from (each.result() for each in waiting)


def _seen_each(model: LanguageModel, quantized: QuantizedModel, windows: Tokens) -> Iterator[Callable[[], Seen]]:
    """What finds each, when its inputs have been seen."""
    sites: dict[Site, _Site] = {}
    roles, told = model.roles(), set[str]()

    def grid(role: str, layer: int) -> Grid:
        return input_grid(quantized.rotation_of(roles[role, layer].name), role)

    def change(site: Site, x: Any) -> Any:
        rows = rows_of(x)
        sites.setdefault(site, _Site(rows.shape[1], {grid(role, site.layer) for role in site.roles})).update(rows)
        return x

    for site in forward(model, windows, change, product_dtype()):
        found = sites.pop(site)
        gram = found.gram.gram
        for role in site.roles:
            place = roles[role, site.layer]
            if place.name not in told:
                told.add(place.name)
                yield partial(_seen, model, quantized, place.name, gram, found.counts[grid(role, site.layer)])
    for name in dict.fromkeys(place.name for place in roles.values()):
        if len(model.shape(name)) == 2 and name not in told:
            yield partial(_seen, model, quantized, name, None, None)


class _Site:
    """What is summed up of one input: its moments, and its values on every grid that its readers round it to."""

    def __init__(self, columns: int, grids: set[Grid]) -> None:
        self.gram = Gram(columns, product=transposed_product)
        self.counts = {grid: np.zeros(BINS, np.int64) for grid in grids}

    def update(self, rows: Floats) -> None:
        self.gram.update(rows)
        for grid, counts in self.counts.items():
            counts += on_the_grid(rows, grid)


def on_the_grid(rows: Floats, grid: Grid) -> Counts:
    """(tokens, columns) -> (BINS,) how many values lie where between the outermost codes; what shares a scale of zero is left
    out.
    """
    (rotation, sharing), columns = grid, rows.shape[1]
    turned, whole = rotate(rows, rotation), columns - columns % (sharing or columns)
    parts = [turned[:, :whole].reshape(-1, sharing or columns), turned[:, whole:]]
    return np.asarray(sum(_counted(part) for part in parts if part.size))


def _counted(rows: Floats) -> Counts:
    """(BINS,) of what each row's largest value is the scale of."""
    largest = np.abs(rows).max(axis=1, keepdims=True)
    shares = rows[largest[:, 0] > 0] / largest[largest > 0][:, None]
    return np.asarray(np.histogram(shares, BINS, (-1 - 1e-6, 1 + 1e-6))[0], np.int64)


def _seen(
    model: LanguageModel, quantized: QuantizedModel, name: str, gram: npt.NDArray[Any] | None, counts: Counts | None
) -> Seen:
    weights, stored = model.read(name), quantized.stored(name)
    lying = weight_histogram(weights, stored, WEIGHT_BINS) if isinstance(stored, Packed) else None
    return Seen(name, tensor_metrics(weights, stored, gram), lying, counts)
