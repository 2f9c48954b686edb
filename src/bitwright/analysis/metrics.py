"""What storing one tensor with fewer bits did to it: error against the weights, use of the grid, error of the layer's output.

With W the weights, Q what the codes stand for (turned back where columns were rotated), E = Q - W, and H = mean x x^T the
second moments of the layer's inputs (observers/gram.py):

    SQNR = 10 log10(|W|^2 / |E|^2) dB        cosine = <W, Q> / (|W| |Q|)        output error = trace(E H E^T) / trace(W H W^T)

the last being the share of the layer's output energy that its error has, on average over the tokens that H was taken from.
The grid is looked at in the columns that the codes are of. Tensors are read a block of rows at a time: memory is needed for
the block, not for the tensor. Sums are in double precision.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bitwright.core import Floats, QTensor
from bitwright.formats import FORMATS
from bitwright.formats.hadamard import rotate
from bitwright.formats.uniform import Uniform
from bitwright.models.base import Dense, Packed

Doubles = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Quantized = Packed | QTensor | Dense

BLOCK_WEIGHTS = 1 << 21  # compared at once


@dataclass(frozen=True)
class TensorMetrics:
    """One tensor's figures.

    `sqnr_db`        signal to quantization noise, 10 log10(sum W^2 / sum E^2); infinite where nothing changed
    `cosine`         of the angle between W and Q as vectors; 1 where both are zero, 0 where only one of them is
    `largest_error`  max |E|, in the weights' own unit
    `clipped_share`  share of weights that lie beyond the outermost level of their group by more than half a step, a step being
                     the distance from that level to its neighbour: what rounding to nearest would not have had to move as
                     far. Of a group whose scale is zero, all weights that are not zero. None in full precision
    `unused_share`   share of the format's codes that occur nowhere in the tensor; codes that stand for no number (NaN), or for
                     one that a lower code stands for already (-0), are not counted. None in full precision
    `output_error`   trace(E H E^T) / trace(W H W^T) with the weights' error alone, activations not rounded; 0 where both are
                     zero, infinite where only the second is. None without H
    """

    sqnr_db: float
    cosine: float
    largest_error: float
    clipped_share: float | None
    unused_share: float | None
    output_error: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: what is infinite is null."""
        return {name: value if value is None or math.isfinite(value) else None for name, value in asdict(self).items()}


class Histogram(NamedTuple):
    """Weights and the levels they are rounded to, in one unit.

    `edges`   (bins + 1,) ascending, evenly spaced from the lowest weight or level to the highest
    `counts`  (bins,) weights in each
    `levels`  ascending, those of the format; empty in full precision
    """

    edges: Doubles
    counts: Counts
    levels: Doubles

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, as a report's document has it: six digits are more than can be seen."""
        edges, levels = ([float(f"{value:.6g}") for value in values] for values in (self.edges, self.levels))
        return {"edges": edges, "counts": self.counts.tolist(), "levels": levels}


def tensor_metrics(weights: Floats, quantized: Quantized, gram: npt.NDArray[Any] | None = None) -> TensorMetrics:
    """Of (rows, columns) `weights` and what they are stored as; `gram` (columns, columns) of its inputs, not rotated."""
    moments = None if gram is None else np.asarray(gram, np.float32)
    sums = np.zeros(6)  # |W|^2, |Q|^2, |E|^2, <W, Q>, trace(W H W^T), trace(E H E^T)
    clipped, largest, used = 0, 0.0, np.zeros(0, np.bool_)
    for begin, end, block in _blocks(quantized):
        original, stored = weights[begin:end], block.dequantize()
        error = stored - original
        sums += [
            *map(_dot, (original, stored, error, original), (original, stored, error, stored)),
            *_outputs(original, error, moments),
        ]
        largest = max(largest, float(np.abs(error).max()))
        if isinstance(block, QTensor):
            clipped += _clipped(original, block)
            used = _used(block) | (used if used.size else False)
    signal, stored_signal, noise, product, output, output_error = (float(value) for value in sums)
    has_grid = used.size > 0
    return TensorMetrics(
        10 * math.log10(signal / noise) if signal > 0 and noise > 0 else (-math.inf if noise > 0 else math.inf),
        _cosine(signal, stored_signal, product),
        largest,
        clipped / weights.size if has_grid else None,
        1 - float(used.mean()) if has_grid else None,
        _ratio(output_error, output) if gram is not None else None,
    )


def weight_histogram(weights: Floats, quantized: Quantized, bins: int) -> Histogram:
    """How (rows, columns) `weights` lie on the grid they are rounded to.

    One scale for the whole tensor: in the weights' own unit, levels times that scale. Finer: every weight is divided by its
    group's scale, plus the group's zero point where there is one, so that all groups share the format's own levels; groups
    whose scale is zero are left out. Rotated weights are shown as they were rounded, rotated. Of learned tables that rows or
    groups have for themselves, `levels` are the medians, code by code.
    """
    levels = _shown_levels(quantized)
    low, high = (float(levels[0]), float(levels[-1])) if levels.size else (math.inf, -math.inf)

    def parts() -> Iterator[Doubles]:
        return (_on_the_grid(weights[begin:end], block) for begin, end, block in _blocks(quantized))

    held = list(parts()) if weights.size <= BLOCK_WEIGHTS else None  # gone through twice
    for values in held or parts():
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    if not low < high:  # all alike, or nothing left
        middle = low if math.isfinite(low) else 0.0
        low, high = middle - 0.5, middle + 0.5
    edges, counts = np.linspace(low, high, bins + 1), np.zeros(bins, np.int64)
    for values in held or parts():
        counts += np.histogram(values, bins, (low, high))[0]
    return Histogram(edges, counts, levels)


def _blocks(quantized: Quantized) -> Iterator[tuple[int, int, QTensor | Dense]]:
    """[begin, end) of rows and what they are stored as; a `QTensor` is whole already."""
    if isinstance(quantized, QTensor):
        yield 0, quantized.shape[0], quantized if quantized.params is not None else Dense("fp32", quantized.dequantize())
        return
    step = max(1, BLOCK_WEIGHTS // quantized.shape[1])
    for begin in range(0, quantized.shape[0], step):
        end = min(begin + step, quantized.shape[0])
        rows = quantized.rows(begin, end)
        yield begin, end, rows.qtensor() if isinstance(rows, Packed) else rows


def _dot(a: Floats, b: Floats) -> float:
    return float(np.einsum("ij,ij->", a, b, dtype=np.float64))


def _outputs(weights: Floats, error: Floats, gram: Floats | None) -> tuple[float, float]:
    """trace(W H W^T) and trace(E H E^T). Never negative, whatever rounding does to a sum that is nearly zero."""
    if gram is None:
        return 0.0, 0.0
    return max(_dot(weights @ gram, weights), 0.0), max(_dot(error @ gram, error), 0.0)


def _cosine(signal: float, stored: float, product: float) -> float:
    if signal == 0 or stored == 0:
        return float(signal == stored)
    return min(1.0, max(-1.0, product / math.sqrt(signal * stored)))


def _ratio(part: float, whole: float) -> float:
    if whole > 0:
        return part / whole
    return math.inf if part > 0 else 0.0


def _levels(tensor: QTensor) -> Floats:
    """(tables, 2^bits) levels by code, NaN for codes that stand for nothing or for a lower code's level again."""
    assert tensor.params is not None
    if tensor.params.table is not None:
        return tensor.params.table
    format = FORMATS[tensor.scheme.format]
    levels = format.decode(np.arange(1 << format.bits, dtype=np.uint8))
    if not isinstance(format, Uniform):
        repeated = np.ones(len(levels), np.bool_)
        repeated[np.unique(levels, return_index=True)[1]] = False
        levels = np.where(repeated, np.float32(np.nan), levels)
    return levels[None, :]


def _used(tensor: QTensor) -> npt.NDArray[np.bool_]:
    """For each code that stands for something, whether it occurs."""
    levels = _levels(tensor)
    counts = np.bincount(tensor.codes.reshape(-1), minlength=levels.shape[1])
    return np.asarray(counts[np.isfinite(levels).any(axis=0)] > 0)


def _ends(tensor: QTensor) -> Floats:
    """(tables, 2): the lowest and the highest level, each moved outwards by half a step."""
    levels = _levels(tensor)
    ends = []
    for sign in (-1, 1):
        outer = np.nanmax(sign * levels, axis=1, keepdims=True)
        inner = np.where(sign * levels < outer, sign * levels, np.float32(-np.inf)).max(axis=1, keepdims=True)
        ends.append(sign * np.where(np.isfinite(inner), outer + (outer - inner) / 2, outer))
    return np.concatenate(ends, axis=1)


def _clipped(weights: Floats, tensor: QTensor) -> int:
    """Compared in the weights' unit, so that a negative scale swaps the ends and one of zero makes them zero."""
    params = tensor.params
    assert params is not None
    groups = rotate(weights, tensor.rotation).reshape(len(params.scale), -1)
    ends = _ends(tensor)
    ends = np.repeat(ends, len(groups) // len(ends), axis=0)  # a table serves an equal share of the groups
    if params.zero_point is not None:
        ends = ends - params.zero_point[:, None]
    ends = np.sort(ends * params.scale[:, None], axis=1)
    return int(np.count_nonzero((groups < ends[:, :1]) | (groups > ends[:, 1:])))


def _on_the_grid(weights: Floats, block: QTensor | Dense) -> Doubles:
    """(n,): the weights in the unit that `weight_histogram` describes."""
    if isinstance(block, Dense) or block.params is None:
        return weights.reshape(-1).astype(np.float64)
    params, turned = block.params, rotate(weights, block.rotation)
    if block.scheme.group == -1:
        return turned.reshape(-1).astype(np.float64)
    alive = params.scale != 0
    values = turned.reshape(len(params.scale), -1)[alive] / params.scale[alive, None].astype(np.float64)
    if params.zero_point is not None:
        values = values + params.zero_point[alive, None]
    return np.asarray(values.reshape(-1), np.float64)


def _shown_levels(quantized: Quantized) -> Doubles:
    """Ascending, in the unit that `weight_histogram` describes; none in full precision."""
    if isinstance(quantized, Dense) or (isinstance(quantized, QTensor) and quantized.params is None):
        return np.zeros(0)
    tensor = quantized if isinstance(quantized, QTensor) else quantized.rows(0, 1).qtensor()
    tables = quantized.table if isinstance(quantized, Packed) else None  # of all rows
    levels = np.median(_levels(tensor) if tables is None else tables.astype(np.float32), axis=0).astype(np.float64)
    params = tensor.params
    if tensor.scheme.group == -1 and params is not None:
        zero_point = 0.0 if params.zero_point is None else float(params.zero_point[0])
        levels = (levels - zero_point) * float(params.scale[0])
    return np.unique(levels[np.isfinite(levels)])
