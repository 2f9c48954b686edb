"""A decoder's blocks in torch, many windows at a time: models/architecture.py once more, for calibration.

Its slow twin is engine/reference.py. The residual stream is float32; products take their operands in `dtype`: bfloat16
where this processor multiplies it natively, which is two to three times faster, else float32. Shapes are
(windows, tokens, channels).
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from bitwright.calibration.routing import routes
from bitwright.models.architecture import ROUTER, Architecture, of_expert
from bitwright.models.rope import inverse_frequencies

Read = Callable[[str, int], npt.NDArray[np.float32] | None]  # (role, layer) -> tensor, None where the model has none
Floats = npt.NDArray[np.float32]
Weights = Mapping[str, Tensor]  # by role; matrices in the dtype of products, vectors and routers in float32

PRODUCT_BLOCK = 384  # columns


@cache
def product_dtype() -> torch.dtype:
    """bfloat16 where the processor has instructions for it."""
    if platform.machine() in ("x86_64", "AMD64") and Path("/proc/cpuinfo").exists():
        flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "").split()
        return torch.bfloat16 if {"avx512_bf16", "amx_bf16"} & set(flags) else torch.float32
    return torch.float32


def linear(x: Tensor, weights: Weights, role: str) -> Tensor:
    """X W^T + b, in the dtype of x."""
    bias = weights.get(f"{role}_bias")
    return functional.linear(x, weights[role], None if bias is None else bias.to(x.dtype))


Linear = Callable[[Tensor, Weights, str], Tensor]


@dataclass(frozen=True)
class Decoder:
    """One architecture at one window length."""

    architecture: Architecture
    length: int
    dtype: torch.dtype
    linear: Linear = linear  # who multiplies: one that watches, where inputs and outputs are asked for

    def normed(self, x: Tensor, gain: Tensor) -> Tensor:
        """X / rms(x) * (offset + gain), in the dtype of products."""
        return self._norm(x, gain).to(self.dtype)

    def attended(self, h: Tensor, weights: Weights, layer: int) -> Tensor:
        """What the output projection reads: (windows, tokens, heads * head_dim)."""
        architecture = self.architecture
        q, k = (self._turned(self.linear(h, weights, role), weights.get(f"{role}_norm"), layer) for role in ("q", "k"))
        v = self._heads(self.linear(h, weights, "v"))
        window = architecture.window_of_layer[layer]
        limited = 0 < window < self.length
        if architecture.attention_softcap:
            mixed = self._capped(q, k, v, self._mask(window))
        else:
            mask = self._mask(window) if limited else None
            mixed = functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=not limited, scale=architecture.attention_scale, enable_gqa=True
            )
        return mixed.transpose(1, 2).flatten(2)

    def gated(self, h: Tensor, weights: Weights, expert: int | None = None) -> Tensor:
        """What the down projection reads, of the MLP or of one expert: activation(gate) * up."""
        gate, up = (self.linear(h, weights, of_expert(role, expert)) for role in ("gate", "up"))
        if self.architecture.activation == "silu":
            return functional.silu(gate).mul_(up) if not torch.is_grad_enabled() else functional.silu(gate) * up
        return functional.gelu(gate, approximate="tanh") * up

    def added(self, x: Tensor, read: Tensor, weights: Weights, role: str) -> None:
        """Project what `attended` or `gated` gave and add it to the residual stream, in place."""
        x += self._projected(read, weights, role)

    def through_expert(self, h: Tensor, weights: Weights, expert: int) -> Tensor:
        """What one expert gives for h (..., hidden_size): float32 of the same shape."""
        return self.linear(self.gated(h, weights, expert), weights, of_expert("down", expert)).float()

    def mixed(self, h: Tensor, weights: Weights) -> Tensor:
        """What all experts add to the residual stream, each token's by their shares: float32 of the shape of h."""
        rows = h.flatten(0, -2)
        total = torch.zeros(rows.shape, dtype=torch.float32)
        for expert, (tokens, shares) in enumerate(routes(rows, weights[ROUTER], self.architecture)):
            if len(tokens):
                total = total.index_add(0, tokens, shares[:, None] * self.through_expert(rows[tokens], weights, expert))
        return total.view(h.shape)

    def through(self, x: Tensor, weights: Weights, layer: int) -> Tensor:
        """The residual stream after a whole block."""
        h = self.normed(x, weights["attention_norm"])
        x = x + self._projected(self.attended(h, weights, layer), weights, "o")
        h = self.normed(x, weights["mlp_norm"])
        if self.architecture.experts:
            return x + self.mixed(h, weights)
        return x + self._projected(self.gated(h, weights), weights, "down")

    def _projected(self, read: Tensor, weights: Weights, role: str) -> Tensor:
        """What a block adds to the residual stream."""
        y = self.linear(read, weights, role).float()
        gain = weights.get("post_attention_norm" if role == "o" else "post_mlp_norm")
        return y if gain is None else self._norm(y, gain)

    def _norm(self, x: Tensor, gain: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        over = torch.rsqrt(size * size / x.shape[-1] + self.architecture.norm_epsilon)
        return x * over * (self.architecture.norm_offset + gain)

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], -1, self.architecture.head_dim).transpose(1, 2)

    def _turned(self, x: Tensor, gain: Tensor | None, layer: int) -> Tensor:
        """What `q` and `k` give, (windows, tokens, heads * head_dim), normed and turned: (windows, heads, tokens, head_dim)."""
        x, dim = x.float(), self.architecture.head_dim
        if self.architecture.qk_norm:
            assert gain is not None
            x = self._norm(x.view(*x.shape[:-1], -1, dim), gain).flatten(-2)
        turns = self._turns(self.architecture.rope_of_layer[layer], x.shape[-1] // dim)
        return self._heads(rotate(x, turns, dim).to(self.dtype))

    def _turns(self, index: int, heads: int) -> Turns:
        if (index, heads) not in self._known_turns:
            frequencies, factor = inverse_frequencies(self.architecture.ropes[index], self.length)
            angles = torch.arange(self.length, dtype=torch.float32)[:, None] * torch.from_numpy(
                np.asarray(frequencies, np.float32)
            )
            self._known_turns[index, heads] = Turns.of(angles, factor, self.architecture.head_dim, heads)
        return self._known_turns[index, heads]

    @cached_property
    def _known_turns(self) -> dict[tuple[int, int], Turns]:
        return {}

    def _mask(self, window: int) -> Tensor:
        position = torch.arange(self.length)
        distance = position[:, None] - position[None, :]
        return (distance >= 0) & ((distance < window) | (window == 0))

    def _capped(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        sharing, cap = self.architecture.heads // self.architecture.kv_heads, self.architecture.attention_softcap
        k, v = k.repeat_interleave(sharing, 1), v.repeat_interleave(sharing, 1)
        scores = (q @ k.transpose(-1, -2)).float() * self.architecture.attention_scale
        scores = (cap * torch.tanh(scores / cap)).masked_fill(~mask, -torch.inf)
        return torch.softmax(scores, -1).to(self.dtype) @ v


@dataclass(frozen=True)
class Turns:
    """Of all heads' channels, (tokens, heads * head_dim): what each is multiplied by, and what its partner is."""

    own: Tensor
    partner: Tensor
    half: int

    @classmethod
    def of(cls, angles: Tensor, factor: float, dim: int, heads: int) -> Turns:
        """`angles` (tokens, half). Channel i of a head's first `half` turns with channel i + half; those beyond both stay."""
        cosine, sine = angles.cos() * factor, angles.sin() * factor
        beyond = torch.ones(len(angles), dim - 2 * angles.shape[1])
        own, partner = torch.cat([cosine, cosine, beyond], -1), torch.cat([-sine, sine, 0 * beyond], -1)
        return cls(own.repeat(1, heads), partner.repeat(1, heads), angles.shape[1])


def rotate(x: Tensor, turns: Turns, dim: int) -> Tensor:
    """(windows, tokens, heads * dim), turned. Whole rows at a time: loops over a head's few channels would cost more."""
    heads, half = x.view(*x.shape[:-1], -1, dim), turns.half
    partners = torch.cat([heads[..., half : 2 * half], heads[..., :half], heads[..., 2 * half :]], -1).flatten(-2)
    return torch.addcmul(x * turns.own, partners, turns.partner)


@contextmanager
def bfloat16_products() -> Iterator[None]:
    """Products of float32 matrices take their factors in bfloat16 meanwhile; sums stay float32."""
    setting = torch.backends.mkldnn.matmul  # type: ignore[attr-defined, unused-ignore]
    before = setting.fp32_precision
    setting.fp32_precision = "bf16"
    try:
        yield
    finally:
        setting.fp32_precision = before


def transposed_product(a: Floats, b: Floats, dtype: torch.dtype = torch.float32) -> Floats:
    """A^T B of (tokens, columns) matrices, by torch: numpy's threads would keep spinning into torch's next product.

    Factors are taken in `dtype`, of which bfloat16 is off by up to 2^-8 of each; layers' inputs are bfloat16 anyway where
    that is the dtype of products, and tokens are not weighed. Sums are float32. Of a matrix with itself only the blocks on
    and above the diagonal are multiplied; the others stay zero.
    """
    left, right = torch.from_numpy(a), torch.from_numpy(b)
    with bfloat16_products() if dtype == torch.bfloat16 else nullcontext():
        if a is not b:
            return (left.T @ right).numpy()
        result = torch.zeros(a.shape[1], a.shape[1])
        for begin in range(0, a.shape[1], PRODUCT_BLOCK):
            part = slice(begin, begin + PRODUCT_BLOCK)
            torch.mm(left[:, part].T, left[:, begin:], out=result[part, begin:])
    return result.numpy()
