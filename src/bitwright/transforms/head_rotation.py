"""Offline rotation of the values, head by head: the output projection reads channels of which none stands out.

    v_j = R_j^T W_v,j x,   W_o -> W_o R_j in the columns that read head j

Attention mixes tokens and leaves channels alone, so the two meet. R_j is orthogonal (transforms/rotation.py), one a KV head.
SpinQuant, Liu et al. 2024, arXiv:2405.16406 (their R2, here not learned).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bitwright.models.architecture import Architecture
from bitwright.models.base import LanguageModel
from bitwright.transforms.model import Edit
from bitwright.transforms.rotation import orthogonal
from bitwright.transforms.setting import Setting

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


def rotate_heads(model: LanguageModel, setting: Setting) -> list[Edit]:
    """Each value head by a matrix of its own."""
    architecture, known, found = model.architecture, model.roles(), []
    for layer in range(architecture.layers):
        random = np.random.default_rng([setting.seed, layer])
        turns = np.stack([orthogonal(architecture.head_dim, random) for _ in range(architecture.kv_heads)])
        found += [Edit(role, layer, values_turned(turns)) for role in ("v", "v_bias") if (role, layer) in known]
        found.append(Edit("o", layer, outputs_turned(turns, architecture)))
    return found


def values_turned(turns: Doubles) -> Callable[[Floats], Floats]:
    """R_j^T W_j for the rows of each value head; `turns` is (kv_heads, head_dim, head_dim)."""
    heads, dim, _ = turns.shape
    return lambda weights: (turns.transpose(0, 2, 1) @ weights.reshape(heads, dim, -1)).reshape(weights.shape).astype(np.float32)


def outputs_turned(turns: Doubles, architecture: Architecture) -> Callable[[Floats], Floats]:
    """W R_j for the columns that read each head, those that share a value head by the same R_j."""
    each = np.repeat(turns, architecture.heads // architecture.kv_heads, axis=0)

    def change(weights: Floats) -> Floats:
        by_head = weights.reshape(len(weights), architecture.heads, architecture.head_dim)
        turned = np.einsum("rhi,hij->rhj", by_head, each, optimize=True)
        return np.asarray(turned.reshape(weights.shape), np.float32)

    return change
