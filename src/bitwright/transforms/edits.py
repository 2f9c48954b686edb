"""The few changes that transforms are made of, and where in a decoder a scale can move from one tensor to another.

A column scale s on the layers that read x is undone by 1/s on what gives x, wherever what lies between commutes with it:

    norm -> q, k, v     norm -> gate, up     the norm's gain is divided
    v -> o              attention mixes tokens, never channels; heads that share a value head share its scales
    up -> down          activation(gate) * up is linear in up
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bitwright.errors import RecipeError
from bitwright.models.architecture import Architecture, expert_of, kind_of, of_expert
from bitwright.models.base import LanguageModel
from bitwright.transforms.model import Edit

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

GIVER = {"q": "attention_norm", "gate": "mlp_norm", "o": "v", "down": "up"}  # of what the first role of a site reads
NORMS = ("attention_norm", "mlp_norm", "final_norm")


def dense(transform: str) -> Callable[[LanguageModel], None]:
    """The check of a transform that moves scales onto what reads a norm. It raises `RecipeError` for a mixture of experts."""

    def check(model: LanguageModel) -> None:
        if model.architecture.experts:
            raise RecipeError(f"{transform}: all experts of a mixture read one norm, which takes no scale of each; leave it out")

    return check


def columns_times(scale: Doubles) -> Callable[[Floats], Floats]:
    """Of a (rows, columns) matrix."""
    return lambda weights: (weights * scale).astype(np.float32)


def rows_over(scale: Doubles) -> Callable[[Floats], Floats]:
    """Of a (rows, columns) matrix, or a (rows,) bias."""
    return lambda weights: (weights.T / scale).T.astype(np.float32)


def gain_over(scale: Doubles, offset: float) -> Callable[[Floats], Floats]:
    """Of a norm that multiplies by offset + gain."""
    return lambda gain: ((offset + gain.astype(np.float64)) / scale - offset).astype(np.float32)


def moved(model: LanguageModel, layer: int, roles: tuple[str, ...], scale: Doubles) -> list[Edit]:
    """`scale` (columns,) onto the columns of these roles, which read one input, and off what gives that input.

    Before o, `scale` is one number a value channel: (kv_heads * head_dim,).
    """
    giver, known = of_expert(GIVER[kind_of(roles[0])], expert_of(roles[0])), model.roles()
    spread = shared_heads(model.architecture, scale) if roles == ("o",) else scale
    found = [Edit(role, layer, columns_times(spread)) for role in roles]
    if giver in NORMS:
        return [*found, Edit(giver, layer, gain_over(scale, model.architecture.norm_offset))]
    bias = [Edit(f"{giver}_bias", layer, rows_over(scale))] if (f"{giver}_bias", layer) in known else []
    return [*found, Edit(giver, layer, rows_over(scale)), *bias]


def shared_heads(architecture: Architecture, values: Doubles) -> Doubles:
    """(kv_heads * head_dim,) one a value channel -> (heads * head_dim,) as the output projection reads them."""
    by_head = values.reshape(architecture.kv_heads, architecture.head_dim)
    return np.repeat(by_head, architecture.heads // architecture.kv_heads, axis=0).reshape(-1)


def value_channels(architecture: Architecture, values: Doubles) -> Doubles:
    """The inverse: (heads * head_dim,) -> (sharing, kv_heads * head_dim), the heads that share a value channel in a column."""
    sharing = architecture.heads // architecture.kv_heads
    by_head = values.reshape(architecture.kv_heads, sharing, architecture.head_dim)
    return by_head.transpose(1, 0, 2).reshape(sharing, -1)
