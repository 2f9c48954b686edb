"""Each matrix under its real inputs: the error of its output, and those inputs on the grid that the engine rounds them to.

One forward pass of the unquantized model shows every input x (calibration/forward.py). From H = mean x x^T follows the error
of the layer's output (metrics.py); the engine rounds x token by token, turned first where the matrix's columns are,

    codes = round(x / s),  s = max |x| / 127 of the token

so x / s is what lies on the whole numbers from -127 to 127. A peak at zero with thin tails says that few levels are used:
one large value stretches the grid for all others of its token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.analysis.metrics import TensorMetrics, tensor_metrics
from bitwright.calibration.decoder import product_dtype, transposed_product
from bitwright.calibration.forward import Site, forward
from bitwright.calibration.sequential import rows_of
from bitwright.formats.hadamard import rotate
from bitwright.models.base import LanguageModel
from bitwright.observers.gram import Gram
from bitwright.quantization import QuantizedModel

Floats = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]
Counts = npt.NDArray[np.int64]

LARGEST_CODE, BINS = 127, 127


@dataclass(frozen=True, eq=False)
class Seen:
    """A stored tensor's figures; `activations` (BINS,) counts inputs over [-127, 127], None where nothing is multiplied."""

    tensor: str
    metrics: TensorMetrics
    activations: Counts | None

    def counts(self) -> dict[str, Any] | None:
        """As a report's document has it."""
        if self.activations is None:
            return None
        return counts_on_the_grid(self.activations)


def counts_on_the_grid(counts: npt.NDArray[np.int64]) -> dict[str, Any]:
    """(BINS,) counts between the engine's outermost codes, as a report's document has them."""
    edges, levels = np.linspace(-LARGEST_CODE, LARGEST_CODE, BINS + 1), range(-LARGEST_CODE, LARGEST_CODE + 1)
    return {"edges": edges.tolist(), "counts": counts.tolist(), "levels": list(levels)}


def seen_inputs(model: LanguageModel, quantized: QuantizedModel, windows: Tokens) -> Iterator[Seen]:
    """Every matrix of the model once, in the order of computation; what is only looked up last. `windows` (windows, tokens)."""
    sites: dict[Site, _Site] = {}
    roles, told = model.roles(), set[str]()

    def change(site: Site, x: Any) -> Any:
        rows = rows_of(x)
        turned = {_rotation(quantized, roles[role, site.layer].name) for role in site.roles}
        sites.setdefault(site, _Site(rows.shape[1], turned)).update(rows)
        return x

    for site in forward(model, windows, change, product_dtype()):
        found = sites.pop(site)
        for role in site.roles:
            place = roles[role, site.layer]
            if place.name not in told:
                told.add(place.name)
                metrics = _metrics(model, quantized, place.name, found.gram.gram)
                yield Seen(place.name, metrics, found.counts[_rotation(quantized, place.name)])
    for name in dict.fromkeys(place.name for place in roles.values()):
        if len(model.shape(name)) == 2 and name not in told:
            yield Seen(name, _metrics(model, quantized, name, None), None)


class _Site:
    """What is summed up of one input: its moments, and its values on the grid for every rotation that its readers have."""

    def __init__(self, columns: int, rotations: set[int]) -> None:
        self.gram = Gram(columns, product=transposed_product)
        self.counts = {rotation: np.zeros(BINS, np.int64) for rotation in rotations}

    def update(self, rows: Floats) -> None:
        self.gram.update(rows)
        for rotation, counts in self.counts.items():
            counts += on_the_grid(rotate(rows, rotation))


def on_the_grid(rows: Floats) -> Counts:
    """(tokens, columns) -> (BINS,) how many values lie where, each token by its own scale; tokens of zeros are left out."""
    largest = np.abs(rows).max(axis=1, keepdims=True)
    alive = rows[largest[:, 0] > 0] * (LARGEST_CODE / largest[largest > 0])[:, None]
    return np.asarray(np.histogram(alive, BINS, (-LARGEST_CODE * (1 + 1e-6), LARGEST_CODE * (1 + 1e-6)))[0], np.int64)


def _rotation(quantized: QuantizedModel, name: str) -> int:
    return quantized.rotation_of(name)


def _metrics(model: LanguageModel, quantized: QuantizedModel, name: str, gram: npt.NDArray[Any] | None) -> TensorMetrics:
    return tensor_metrics(model.read(name), quantized.stored(name), gram)
