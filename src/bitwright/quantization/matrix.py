"""One matrix as a choice stores it: weights -> prune or rotate (if asked) -> fit (scale, zero point) -> round (codes) -> pack.

Rows are taken in blocks, since few schemes look across rows: threads share the blocks, and memory stays near one tensor.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from bitwright.core import Choice, QTensor
from bitwright.errors import NonFiniteError, SchemeError
from bitwright.fitting import CALIBRATED, FITTING, Fit
from bitwright.formats import FORMATS
from bitwright.formats.checks import require_finite
from bitwright.formats.hadamard import rotate, rotation_block
from bitwright.formats.packing import pack
from bitwright.formats.scales import store_multiples, store_scale
from bitwright.models.base import Dense, Packed
from bitwright.rounding import ROUNDING
from bitwright.rounding.moments import Moments
from bitwright.sparsity.pruning import Pattern, mask, strip

BLOCK_BYTES = 2**22  # of float32 weights that one thread works on at once: what a core's cache holds
THREADS = min(8, len(os.sched_getaffinity(0)))


def quantize_matrix(name: str, tensor: Packed | Dense, choice: Choice, moments: Moments | None = None) -> Packed | Dense:
    """(rows, columns) -> the same weights as `choice` stores them. Methods that need `moments` round to nearest without.

    Raises `NonFiniteError` and `SchemeError` naming the tensor.
    """
    scheme, shape, rotation = choice.scheme, (tensor.shape[0], tensor.shape[1]), rotation_of(choice, tensor.shape)
    tensor = pruned(name, tensor, choice.prune) if choice.prune else tensor
    moments = None if moments is None else moments.rotated(rotation)
    fit = fitting_for(choice, moments)
    method = ROUNDING[choice.method if moments is not None or not ROUNDING[choice.method].needs else "nearest"]

    def work(block: tuple[int, int]) -> Packed | Dense:
        weights = require_finite(tensor.rows(*block).dequantize(), name)
        try:
            quantized = method(rotate(weights, rotation), scheme, fit, moments)
            return packed_from(replace(quantized, rotation=rotation)) if scheme.scaled else dense_from(quantized)
        except (SchemeError, NonFiniteError) as fault:  # a scale beyond fp16, a weight beyond the new precision
            raise type(fault)(f"{name}: {fault}") from fault

    if scheme.whole or moments is not None:  # methods with moments have threads of their own
        return work((0, shape[0]))
    with ThreadPoolExecutor(THREADS) as threads:
        return _joined(list(threads.map(work, blocks_of_rows(shape))))


def pruned(name: str, tensor: Packed | Dense, spelling: str) -> Dense:
    """(rows, columns) with the weights that the pattern drops at zero, in float32. Raises `NonFiniteError` naming the tensor."""
    weights = require_finite(tensor.dequantize(), name)
    return Dense("fp32", strip(weights, mask(weights, Pattern.parse(spelling))))


def fitting_for(choice: Choice, moments: Moments | None) -> Fit:
    """The choice's fitting, made for a layer where it looks at the layer's inputs; mse where nothing is known of them."""
    if choice.fitting not in CALIBRATED:
        return FITTING[choice.fitting]
    return FITTING["mse"] if moments is None else CALIBRATED[choice.fitting](moments.gram.diagonal().astype(np.float32))


def rotation_of(choice: Choice, shape: Sequence[int]) -> int:
    """Columns in a block of the Hadamard rotation that `choice` gives a matrix of this shape; 0 for none."""
    return rotation_block(shape[-1]) if choice.rotate and choice.scheme.scaled else 0


def packed_from(quantized: QTensor) -> Packed:
    """Codes packed to bytes, scales and zero points as they are stored."""
    scheme, params, (row_count, columns) = quantized.scheme, quantized.params, quantized.shape
    grid = FORMATS[scheme.format]
    assert params is not None
    return Packed(
        scheme,
        (row_count, columns),
        pack(quantized.codes, grid.bits),
        store_scale(params.scale if params.row_scale is None else params.row_scale, scheme.scale),
        None if params.zero_point is None else grid.encode(params.zero_point).astype(np.uint8),
        None
        if params.row_scale is None
        else store_multiples(params.scale.reshape(row_count, -1), params.row_scale, scheme.scale),
        None if params.table is None else params.table.astype(np.int8 if grid.level_bits == 8 else np.float16),
        quantized.rotation,
    )


def dense_from(quantized: QTensor) -> Dense:
    """Codes of a full-precision format as the numbers they are."""
    dtype = {"fp32": np.float32, "fp16": np.float16, "bf16": np.uint16}[quantized.scheme.format]
    return Dense(quantized.scheme.format, quantized.codes.view(dtype))


def _joined(parts: Sequence[Packed | Dense]) -> Packed | Dense:
    """The blocks of one tensor, one below the other."""
    if len(parts) == 1:
        return parts[0]
    dense = [part for part in parts if isinstance(part, Dense)]
    if dense:
        return Dense(dense[0].dtype, np.concatenate([part.values for part in dense]))
    return Packed.joined([part for part in parts if isinstance(part, Packed)])


def blocks_of_rows(shape: Sequence[int]) -> list[tuple[int, int]]:
    """[begin, end) of blocks of whole rows, of about BLOCK_BYTES as float32."""
    row_bytes = 4 * int(np.prod(shape[1:], dtype=np.int64))
    step = max(1, BLOCK_BYTES // row_bytes)
    return [(begin, min(begin + step, shape[0])) for begin in range(0, shape[0], step)]
