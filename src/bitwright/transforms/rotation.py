"""Offline rotation of the residual stream, into a basis where no channel stands out.

x' = x R with R orthogonal keeps rms(x), so once the norms' gains are folded every norm commutes with R:

    embedding R,   W_o -> R^T W_o,   W_down -> R^T W_down,   q, k, v, gate, up, router, head: W -> W R

The head reads x' behind a folded norm, the embedding does not, so the two can no longer be one tensor.

R = D1 (Q x H) D2: H Sylvester's matrix of the largest power of two in n, Q a random orthogonal matrix of what is left, D random
signs. The outer signs keep R from cancelling against the rotation of blocks that recipes ask for (formats/hadamard.py).
QuaRot, Ashkboos et al. 2024, arXiv:2404.00456; SpinQuant, Liu et al. 2024, arXiv:2405.16406 (their R1, here not learned).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bitwright.errors import RecipeError
from bitwright.models.architecture import experts_of, of_expert
from bitwright.models.base import LanguageModel
from bitwright.transforms.fold import NORMS, folded, readers
from bitwright.transforms.model import Edit
from bitwright.transforms.setting import Setting

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


def orthogonal(n: int, random: np.random.Generator) -> Doubles:
    """R, (n, n)."""
    power = n & -n
    hadamard = np.ones((1, 1))
    while len(hadamard) < power:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    rest, triangle = np.linalg.qr(random.standard_normal((n // power, n // power)))
    mixed = np.kron(rest * np.sign(triangle.diagonal()), hadamard / np.sqrt(power))
    left, right = (random.choice([-1.0, 1.0], n) for _ in range(2))
    return np.asarray(left[:, None] * mixed * right)


def check_residual(model: LanguageModel) -> None:
    """Raises `RecipeError` where a gain stands between a layer's output and the residual stream."""
    if model.architecture.post_norms:
        raise RecipeError(
            f"rotate-residual: {model.architecture.family} norms what layers add to the residual stream, and a rotation cannot "
            "pass those norms' gains; use rotate-heads, or leave it out"
        )


def rotate_residual(model: LanguageModel, setting: Setting) -> list[Edit]:
    """Norms folded, then the stream turned."""
    turn = orthogonal(model.architecture.hidden_size, np.random.default_rng(setting.seed))
    known, found = model.roles(), [Edit("embedding", -1, columns_turned(turn))]
    for layer in range(model.architecture.layers):
        for norm in NORMS:
            reading = readers(model.architecture, norm)
            found += folded(model, norm, layer, reading)
            found += [Edit(role, layer, columns_turned(turn)) for role in reading]
        down = [of_expert("down", expert) for expert in experts_of(model.architecture)]
        found += [Edit(role, layer, rows_turned(turn)) for role in ("o", "o_bias", *down) if (role, layer) in known]
    return [*found, *folded(model, "final_norm", -1, ("head",)), Edit("head", -1, columns_turned(turn))]


def columns_turned(turn: Doubles) -> Callable[[Floats], Floats]:
    """W R, for what reads the stream."""
    return lambda weights: (weights @ turn).astype(np.float32)


def rows_turned(turn: Doubles) -> Callable[[Floats], Floats]:
    """R^T W, for what writes to the stream; a bias (rows,) likewise."""
    return lambda weights: (turn.T @ weights).astype(np.float32)
