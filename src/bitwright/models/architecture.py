"""What a decoder-only language model computes, as data. The engine reads nothing else about a model's kind.

For every layer, with x the residual stream (tokens, hidden_size):

    h = norm(x);  q, k, v = h W_q^T + b_q, ...;  [q, k = norm per head];  q, k = rope(q), rope(k)
    a = softmax(softcap(q k^T * attention_scale) + mask) v;  x += [post norm](a W_o^T + b_o)
    h = norm(x);  x += [post norm]((activation(h W_gate^T) * (h W_up^T)) W_down^T)

and at the end logits = softcap(norm(x) W_head^T). A norm is x / rms(x) * (norm_offset + weight).

In a mixture of experts every layer has `experts` MLPs, W_gate.e, W_up.e and W_down.e each, and a token goes through the
`experts_per_token` that its router finds likeliest (Shazeer et al. 2017, arXiv:1701.06538; Mixtral, arXiv:2401.04088):

    p = softmax(h W_router^T);  x += sum of p_e * mlp_e(h) over the chosen e;  [p_e over their sum]
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
    intermediate_size: int  # of the MLP, or of one expert
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
    experts: int = 0  # 0 = one MLP, no router
    experts_per_token: int = 0
    normalized_routing: bool = False  # the chosen experts' probabilities are divided by their sum


class TensorSlice(NamedTuple):
    """Rows [begin, end) of a stored tensor; end -1 means to its last row."""

    name: str
    begin: int = 0
    end: int = -1


# The roles a tensor can play. Matrices are (outputs, inputs); vectors have one dimension.
MODEL_MATRICES = ("embedding", "head")
MODEL_VECTORS = ("final_norm",)
LAYER_MATRICES = ("q", "k", "v", "o", "gate", "up", "down")
EXPERT_MATRICES = ("gate", "up", "down")  # of which each expert has its own, in the role "gate.7"
ROUTER = "router"  # (experts, hidden_size), in full precision always
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


def of_expert(role: str, expert: int | None) -> str:
    """The role of an expert's own matrix; of a layer's one MLP, the role itself."""
    return role if expert is None else f"{role}.{expert}"


def kind_of(role: str) -> str:
    """The role without the number of the expert that plays it."""
    return role.partition(".")[0]


def expert_of(role: str) -> int | None:
    """The number of the expert that plays the role; None where none does."""
    number = role.partition(".")[2]
    return int(number) if number else None


def experts_of(architecture: Architecture) -> tuple[int | None, ...]:
    """The experts of each layer by number; (None,) where its MLP is one."""
    return tuple(range(architecture.experts)) or (None,)


def layer_matrices(architecture: Architecture) -> tuple[str, ...]:
    """The roles of a layer's matrices that are quantized, in the order of computation."""
    dense = tuple(role for role in LAYER_MATRICES if role not in EXPERT_MATRICES)
    return dense + tuple(of_expert(role, expert) for expert in experts_of(architecture) for role in EXPERT_MATRICES)


def active_share(architecture: Architecture, role: str) -> float:
    """The share of all tokens that a matrix of this role multiplies, if experts are chosen evenly."""
    return 1.0 if expert_of(role) is None else architecture.experts_per_token / architecture.experts
