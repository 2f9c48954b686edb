"""The engine's slow twin: models/architecture.py read aloud in numpy. Full attention over all tokens, no cache.

It is what the native engine and every other runtime are compared with; it is compared with transformers itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.errors import ContextError
from bitwright.models.architecture import ROUTER, Architecture, TensorSlice, of_expert
from bitwright.models.base import LanguageModel
from bitwright.models.rope import inverse_frequencies

Array = npt.NDArray[Any]
Weight = Callable[[str, int], Array | None]  # (role, layer) -> tensor, None where the model has none


def forward(model: LanguageModel, tokens: Sequence[int] | Array, dtype: npt.DTypeLike = np.float32) -> Array:
    """Logits (n, vocab) after each of n tokens, computed in `dtype`. Raises `ContextError` on no tokens or foreign ones."""
    weight = _weights(model, dtype)
    hidden = _hidden(model.architecture, weight, np.asarray(tokens, np.int64))
    return softcap(hidden @ _required(weight, "head", -1).T, model.architecture.logit_softcap)


def forward_hidden(model: LanguageModel, tokens: Sequence[int] | Array, dtype: npt.DTypeLike = np.float32) -> Array:
    """What the head reads: (n, hidden_size) after the final norm."""
    return _hidden(model.architecture, _weights(model, dtype), np.asarray(tokens, np.int64))


def _hidden(architecture: Architecture, weight: Weight, tokens: Array) -> Array:
    if tokens.ndim != 1 or not len(tokens) or tokens.min() < 0 or tokens.max() >= architecture.vocab_size:
        raise ContextError(f"tokens must be a non-empty list of numbers from 0 to {architecture.vocab_size - 1}")
    x = _required(weight, "embedding", -1)[tokens]
    x = x * x.dtype.type(architecture.embedding_scale)
    turns = [rope_turns(architecture, index, len(tokens)) for index in range(len(architecture.ropes))]
    for layer in range(architecture.layers):
        h = norm(x, _required(weight, "attention_norm", layer), architecture)
        h = attention(architecture, weight, layer, h, turns[architecture.rope_of_layer[layer]])
        x = x + _post_norm(h, weight("post_attention_norm", layer), architecture)
        h = norm(x, _required(weight, "mlp_norm", layer), architecture)
        h = mlp(architecture, weight, layer, h)
        x = x + _post_norm(h, weight("post_mlp_norm", layer), architecture)
    return norm(x, _required(weight, "final_norm", -1), architecture)


def norm(x: Array, gain: Array, architecture: Architecture) -> Array:
    """X / rms(x) * (offset + gain) over the last axis."""
    mean_square = np.mean(np.square(x), axis=-1, keepdims=True)
    root: Array = np.sqrt(mean_square + x.dtype.type(architecture.norm_epsilon))
    normed: Array = x / root * (x.dtype.type(architecture.norm_offset) + gain)
    return normed


def softcap(x: Array, cap: float) -> Array:
    """Cap * tanh(x / cap); x itself for cap 0."""
    return x.dtype.type(cap) * np.tanh(x / x.dtype.type(cap)) if cap else x


def rope_turns(architecture: Architecture, index: int, n: int) -> tuple[Array, Array]:
    """Cosine and sine, (n, dim / 2) float32 each, attention factor included."""
    frequencies, factor = inverse_frequencies(architecture.ropes[index], n)
    angles = np.arange(n, dtype=np.float32)[:, None] * frequencies
    return np.cos(angles) * np.float32(factor), np.sin(angles) * np.float32(factor)


def rotate(x: Array, turns: tuple[Array, Array]) -> Array:
    """X (heads, n, head_dim): channel i of the first dim / 2 turns with channel i + dim / 2; those beyond dim stay."""
    cosine, sine = (turn.astype(x.dtype) for turn in turns)
    half = cosine.shape[-1]
    left, right, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return np.concatenate([left * cosine - right * sine, right * cosine + left * sine, rest], axis=-1)


def attention(architecture: Architecture, weight: Weight, layer: int, h: Array, turns: tuple[Array, Array]) -> Array:
    """Causal, grouped-query, windowed where the layer is: (n, hidden_size) -> (n, hidden_size)."""
    q, k, v = (_heads(_linear(h, weight, role, layer), architecture.head_dim) for role in ("q", "k", "v"))
    if architecture.qk_norm:
        q = norm(q, _required(weight, "q_norm", layer), architecture)
        k = norm(k, _required(weight, "k_norm", layer), architecture)
    q, k = rotate(q, turns), rotate(k, turns)
    sharing = architecture.heads // architecture.kv_heads
    k, v = np.repeat(k, sharing, axis=0), np.repeat(v, sharing, axis=0)
    scores = softcap(q @ k.transpose(0, 2, 1) * h.dtype.type(architecture.attention_scale), architecture.attention_softcap)
    scores = np.where(visible(len(h), architecture.window_of_layer[layer]), scores, -np.inf)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares = shares / shares.sum(axis=-1, keepdims=True)
    mixed = (shares @ v).transpose(1, 0, 2).reshape(len(h), -1)
    return _linear(mixed, weight, "o", layer)


def visible(n: int, window: int) -> Array:
    """(n, n): does the row's position see the column's? Itself and before, the last `window` of them if that is not 0."""
    distance = np.arange(n)[:, None] - np.arange(n)[None, :]
    return (distance >= 0) & ((distance < window) | (window == 0))


def mlp(architecture: Architecture, weight: Weight, layer: int, h: Array) -> Array:
    """(activation(gate) * up) through down; of a mixture, the sum over each token's experts, by their shares."""
    if not architecture.experts:
        return _expert(architecture, weight, layer, h, None)
    shares, result = routed(architecture, h @ _required(weight, ROUTER, layer).T), np.zeros_like(h)
    for expert in np.flatnonzero(shares.any(axis=0)).tolist():
        chosen = np.flatnonzero(shares[:, expert])
        result[chosen] = result[chosen] + shares[chosen, expert, None] * _expert(architecture, weight, layer, h[chosen], expert)
    return result


def routed(architecture: Architecture, logits: Array) -> Array:
    """The router's logits (n, experts) -> what share of the sum each expert has, of the same shape; 0 where it is not chosen."""
    shares: Array = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares = shares / shares.sum(axis=-1, keepdims=True)
    others = np.argsort(-shares, axis=-1, kind="stable")[:, architecture.experts_per_token :]
    np.put_along_axis(shares, others, 0, axis=-1)
    return shares / shares.sum(axis=-1, keepdims=True) if architecture.normalized_routing else shares


def _expert(architecture: Architecture, weight: Weight, layer: int, h: Array, expert: int | None) -> Array:
    gate, up = (_linear(h, weight, of_expert(role, expert), layer) for role in ("gate", "up"))
    return _linear(ACTIVATIONS[architecture.activation](gate) * up, weight, of_expert("down", expert), layer)


def silu(x: Array) -> Array:
    with np.errstate(over="ignore"):  # exp(-x) = inf gives the right 0
        divisor: Array = 1 + np.exp(-x)
    return x / divisor


def gelu_tanh(x: Array) -> Array:
    tanh: Array = np.tanh(x.dtype.type(np.sqrt(2 / np.pi)) * (x + x.dtype.type(0.044715) * x**3))
    result: Array = x / 2 * (1 + tanh)
    return result


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"silu": silu, "gelu_tanh": gelu_tanh}


def _post_norm(h: Array, gain: Array | None, architecture: Architecture) -> Array:
    return h if gain is None else norm(h, gain, architecture)


def _heads(x: Array, head_dim: int) -> Array:
    """(n, heads * head_dim) -> (heads, n, head_dim)."""
    return x.reshape(len(x), -1, head_dim).transpose(1, 0, 2)


def _linear(x: Array, weight: Weight, role: str, layer: int) -> Array:
    y = x @ _required(weight, role, layer).T
    bias = weight(f"{role}_bias", layer)
    return y if bias is None else y + bias


def _required(weight: Weight, role: str, layer: int) -> Array:
    tensor = weight(role, layer)
    assert tensor is not None  # models check their roles on opening
    return tensor


def _weights(model: LanguageModel, dtype: npt.DTypeLike) -> Weight:
    """The model's tensors by role, read when asked for and not kept."""
    places: Mapping[tuple[str, int], TensorSlice] = model.roles()

    def weight(role: str, layer: int) -> Array | None:
        place = places.get((role, layer))
        if place is None:
            return None
        tensor = model.read(place.name).astype(dtype, copy=False)
        return tensor if place.begin == 0 and place.end < 0 else tensor[place.begin : place.end if place.end >= 0 else None]

    return weight
