"""What a decoder-only language model computes, as data. The engine reads nothing else about a model's kind.

For every layer, with x the residual stream (tokens, hidden_size):

    h = norm(x);  q, k, v = h W_q^T + b_q, ...;  [q, k = norm per head];  q, k = rope(q), rope(k)
    a = softmax(softcap(q k^T * attention_scale) + mask) v;  x += [post norm](a W_o^T + b_o)
    h = norm(x);  x += [post norm]((activation(h W_gate^T) * (h W_up^T)) W_down^T)

and at the end logits = softcap(norm(x) W_head^T). A norm is x / rms(x) * (norm_offset + weight).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Activation = Literal["silu", "gelu_tanh"]


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding, halves layout: channel i turns with channel i + dim / 2.

    `dim` channels of each head turn (the first ones); `scaling` is config.json's rope scaling dict, empty for none.
    """

    theta: float
    dim: int
    scaling: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Architecture:
    """One model's shape and switches. Lists by layer have `layers` entries."""

    family: str
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    context_length: int
    ropes: tuple[Rope, ...]
    rope_of_layer: tuple[int, ...]  # index into `ropes`
    window_of_layer: tuple[int, ...]  # tokens a position sees, itself included; 0 = all
    norm_epsilon: float = 1e-5
    norm_offset: float = 0.0  # 1 for Gemma
    activation: Activation = "silu"
    embedding_scale: float = 1.0
    attention_scale: float = 0.0  # always set by the family; 1 / sqrt(head_dim) for most
    attention_softcap: float = 0.0  # 0 = none
    logit_softcap: float = 0.0  # 0 = none
    tied_head: bool = False
    qk_norm: bool = False
    post_norms: bool = False


class TensorSlice(NamedTuple):
    """Rows [begin, end) of a stored tensor; end -1 means to its last row."""

    name: str
    begin: int = 0
    end: int = -1


# The roles a tensor can play. Matrices are (outputs, inputs); vectors have one dimension.
MODEL_MATRICES = ("embedding", "head")
MODEL_VECTORS = ("final_norm",)
LAYER_MATRICES = ("q", "k", "v", "o", "gate", "up", "down")
LAYER_VECTORS = (
    "attention_norm",
    "mlp_norm",
    "q_bias",
    "k_bias",
    "v_bias",
    "o_bias",
    "q_norm",
    "k_norm",
    "post_attention_norm",
    "post_mlp_norm",
)
