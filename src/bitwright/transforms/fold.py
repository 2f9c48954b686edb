"""Norm folding: a norm's gain moves into the columns of the layers that read it, and the norm only normalizes.

    W (g * x / rms(x)) = (W diag(g)) (x / rms(x)),   g = offset + gain

The head's norm is folded where the head is a tensor of its own; one that is the embedding stays as it is, because the
embedding is read in another place without a norm. First step of QuaRot (arXiv:2404.00456) and SliceGPT (arXiv:2401.15024, 3.2).
"""

from __future__ import annotations

import numpy as np

from bitwright.models.architecture import ROUTER, Architecture, experts_of, of_expert
from bitwright.models.base import LanguageModel
from bitwright.transforms.edits import columns_times
from bitwright.transforms.model import Edit, part
from bitwright.transforms.setting import Setting

NORMS = ("attention_norm", "mlp_norm")


def readers(architecture: Architecture, norm: str) -> tuple[str, ...]:
    """What reads a norm of a layer: of a mixture all experts and the router, which sends the same tokens the same ways."""
    if norm == "attention_norm":
        return ("q", "k", "v")
    opened = tuple(of_expert(role, expert) for expert in experts_of(architecture) for role in ("gate", "up"))
    return (*opened, ROUTER) if architecture.experts else opened


def fold(model: LanguageModel, setting: Setting) -> list[Edit]:
    """All norms that can be folded."""
    found = []
    for layer in range(model.architecture.layers):
        for norm in NORMS:
            found += folded(model, norm, layer, readers(model.architecture, norm))
    return found if model.architecture.tied_head else found + folded(model, "final_norm", -1, ("head",))


def folded(model: LanguageModel, norm: str, layer: int, roles: tuple[str, ...]) -> list[Edit]:
    """One norm into the layers that read it."""
    offset = model.architecture.norm_offset
    gain = offset + part(model, norm, layer).astype(np.float64)
    ones = Edit(norm, layer, lambda old: np.full_like(old, 1 - offset))
    return [ones, *(Edit(role, layer, columns_times(gain)) for role in roles)]
