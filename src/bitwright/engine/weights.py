"""From a model's files to the engine's own layout, one tensor at a time.

Codes, or the bytes that engine/layout.py makes of them, go to C++ and are repacked there once. A scheme that has no integer
kernel is decoded to fp32, which is slower and takes more memory: layout.py says which.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitwright import _native
from bitwright.core import Floats
from bitwright.engine.layout import integers_of
from bitwright.models.architecture import LAYER_MATRICES, MODEL_MATRICES, ROUTER, Architecture, TensorSlice, kind_of
from bitwright.models.base import Dense, LanguageModel, Packed, WithMinimum
from bitwright.models.rope import inverse_frequencies
from bitwright.models.row_blocks import stored_blocks

NORMS = ("final_norm", "attention_norm", "mlp_norm", "q_norm", "k_norm", "post_attention_norm", "post_mlp_norm")


def native_model(model: LanguageModel, context: int) -> tuple[_native.Model, _native.Weights]:
    """A model whose matrices are being repacked, and the `wait` for them; nothing may run before.

    `context` picks the frequencies of rope scalings that depend on it.
    """
    architecture = model.architecture
    native = empty_model(architecture)
    for rope in architecture.ropes:
        frequencies, factor = inverse_frequencies(rope, context)
        native.add_rope(frequencies.tolist(), factor)
    for layer in range(architecture.layers):
        native.add_layer(architecture.rope_of_layer[layer], architecture.window_of_layer[layer])
    weights, roles = _native.Weights(native), model.roles()
    tied = roles["head", -1] == roles["embedding", -1]
    for (role, layer), part in roles.items():
        if role == "head" and tied:
            continue
        if kind_of(role) in (*LAYER_MATRICES, *MODEL_MATRICES, ROUTER):
            for number, block in enumerate(stored_blocks(rows_of(model.stored(part.name), part))):
                add_matrix(weights, role, number if role in MODEL_MATRICES else layer, block)
        else:
            vector = rows_of(model.stored(part.name), part).dequantize()
            offset = architecture.norm_offset if role in NORMS else 0.0
            native.set_vector(role, layer, vector + np.float32(offset))
    weights.begin()
    return native, weights


def empty_model(architecture: Architecture) -> _native.Model:
    """The shape and the switches, without weights."""
    native = _native.Model()
    native.hidden, native.intermediate = architecture.hidden_size, architecture.intermediate_size
    native.heads, native.kv_heads = architecture.heads, architecture.kv_heads
    native.head_dim, native.vocabulary = architecture.head_dim, architecture.vocab_size
    native.epsilon, native.embedding_scale = architecture.norm_epsilon, architecture.embedding_scale
    native.attention_scale = architecture.attention_scale
    native.attention_softcap, native.logit_softcap = architecture.attention_softcap, architecture.logit_softcap
    native.gelu = architecture.activation == "gelu_tanh"
    native.experts, native.experts_per_token = architecture.experts, architecture.experts_per_token
    native.normalized_routing = architecture.normalized_routing
    return native


def rows_of(stored: Packed | Dense, part: TensorSlice) -> Packed | Dense:
    """Rows [begin, end) of a stored tensor, still without copying codes."""
    if part.begin == 0 and part.end == -1:
        return stored
    return stored.rows(part.begin, part.end if part.end >= 0 else stored.shape[0])


def only_embedding(native: _native.Model, stored: Packed | Dense) -> None:
    """Repack one matrix as the model's embedding, and wait for it."""
    weights = _native.Weights(native)
    add_matrix(weights, "embedding", 0, stored)
    weights.begin()
    weights.wait()


def add_matrix(weights: _native.Weights, role: str, layer: int, stored: Packed | Dense) -> None:
    """Hand one matrix to C++; `layer` counts the blocks of rows of an embedding or a head.

    Codes of rotated columns go as they are: the engine turns the inputs alike.
    """
    if isinstance(stored, WithMinimum):
        codes, scale, zero_point = whole_of(stored)
        weights.add_packed(role, layer, codes, scale, zero_point, stored.bits, stored.shape[1], stored.GROUP)
    elif isinstance(stored, Dense):
        weights.add_dense(role, layer, dense_bits(stored), stored.dtype == "bf16")
    elif (found := integers_of(stored)) is not None:
        weights.add_packed(
            role,
            layer,
            found.codes,
            found.scale,
            found.zero_point,
            found.bits,
            stored.shape[1],
            found.group,
            multiples=found.multiples,
            table=found.table,
            rotated=stored.rotation > 0,
        )
    else:
        weights.add_dense(role, layer, np.ascontiguousarray(stored.dequantize()), False)


def whole_of(stored: WithMinimum) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16] | Floats, Floats]:
    """Codes, scales and zero points = -minimum / scale. A group whose scale is zero is its minimum: scale 1, codes 0."""
    flat = stored.scale == 0
    scale = np.where(flat, stored.scale.dtype.type(1), stored.scale)
    codes = np.ascontiguousarray(stored.codes)
    if flat.any():
        group_bytes = stored.GROUP * stored.bits // 8
        codes = np.where(flat[:, None], np.uint8(0), codes.reshape(-1, group_bytes)).reshape(codes.shape)
    with np.errstate(all="ignore"):  # hostile scales may be anything; NaN shows in the logits
        zero_point = np.divide(-stored.minimum, scale, dtype=np.float32)
    return codes, scale.view(np.uint16) if scale.dtype == np.float16 else scale, zero_point


def dense_bits(stored: Dense) -> npt.NDArray[np.uint16] | Floats:
    """16-bit values as uint16, others as float32, contiguous."""
    values = np.ascontiguousarray(stored.values)
    return values.view(np.uint16) if values.dtype.itemsize == 2 else values.astype(np.float32, copy=False)
