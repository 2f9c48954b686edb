"""The KV cache's bytes by their definition in native/include/bitwright/kv_cache.h and kernels/cached.h, in plain numpy.

numbers_of(state, kind, shape) -> keys, values  (positions, layers, heads, channels) float32
state_of(keys, values, kind) -> uint8           what a sequence of that type holds
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

SPAN, LANES, BLOCK = 256, 16, 32
BITS = {"fp32": 32, "fp16": 16, "int8": 8, "int4": 4}
REALS: dict[str, Any] = {"fp32": np.float32, "fp16": np.float16}


def up(n: int, unit: int) -> int:
    return -(-n // unit) * unit


def hadamard(x: Floats) -> Floats:
    """Blocks of the largest power of two that divides the channels."""
    n = x.shape[-1]
    block, half = n & -n, 1
    x = x.reshape(*x.shape[:-1], n // block, block).copy()
    while half < block:
        pairs = x.reshape(*x.shape[:-1], -1, 2, half)
        a, b = pairs[..., 0, :].copy(), pairs[..., 1, :].copy()
        pairs[..., 0, :], pairs[..., 1, :] = a + b, a - b
        half *= 2
    return (x * np.float32(1 / np.sqrt(np.float32(block)))).reshape(*x.shape[:-2], n)


def encode(x: Floats, bits: int) -> tuple[Bytes, Floats]:
    """Codes of each head's channels, and their scale."""
    most, shift = (np.float32(127), np.float32(128.5)) if bits == 8 else (np.float32(7.5), np.float32(8))
    bound = np.abs(x).max(-1, keepdims=True)
    inverse = np.divide(most, bound, out=np.zeros_like(bound), where=bound > 0)
    return np.clip(x * inverse + shift, 0, 2**bits - 1).astype(np.uint8), (bound / most)[..., 0]


def panels(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(..., columns, lanes) -> panels of 16 lanes: (..., panels, columns, 16)."""
    *outer, columns, lanes = x.shape
    return x.reshape(*outer, columns, lanes // LANES, LANES).swapaxes(-2, -3)


def code_bytes(x: Bytes, bits: int) -> Bytes:
    """Panels of codes (..., columns, 16) as bytes: four columns of all lanes together, nibbles of steps 2i and 2i + 1."""
    *outer, columns, lanes = x.shape
    steps = x.reshape(*outer, columns // 4, 4, lanes).swapaxes(-1, -2)
    return steps if bits == 8 else steps[..., 0::2, :, :] | steps[..., 1::2, :, :] << 4


def codes_from(data: Bytes, bits: int) -> Bytes:
    """(..., steps or pairs of steps, 16, 4) -> (..., columns, 16)."""
    if bits == 4:
        data = np.stack([data & 15, data >> 4], axis=-3).reshape(*data.shape[:-3], -1, LANES, 4)
    return data.swapaxes(-1, -2).reshape(*data.shape[:-3], -1, LANES)


def unpanel(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The inverse of `panels`."""
    *outer, count, columns, lanes = x.shape
    return x.swapaxes(-2, -3).reshape(*outer, columns, count * lanes)


def state_of(keys: Floats, values: Floats, kind: str) -> Bytes:
    positions, layers, heads, dim = keys.shape
    spans, bits, wide = up(positions, SPAN) // SPAN, BITS[kind], up(dim, LANES)

    def strips(x: Floats) -> Floats:
        whole = np.zeros((spans * SPAN, layers, heads, dim), np.float32)
        whole[:positions] = x
        return whole.reshape(spans, SPAN, layers, heads, dim).transpose(0, 2, 3, 1, 4)

    keys, values = strips(keys), strips(values)
    outer = keys.shape[:3]
    if kind in REALS:
        columns = np.zeros((*outer, SPAN, wide), np.float32)
        columns[..., :dim] = values
        parts = [panels(keys.swapaxes(-1, -2)).astype(REALS[kind]), panels(columns).astype(REALS[kind])]
        return np.concatenate([part.reshape(*outer, -1).view(np.uint8) for part in parts], -1).reshape(-1)
    if kind == "int4":
        keys, values = hadamard(keys), hadamard(values)
    key_codes, value_codes = np.zeros((*outer, SPAN, up(dim, BLOCK)), np.uint8), np.zeros((*outer, SPAN, wide), np.uint8)
    key_codes[..., :dim], key_scale = encode(keys, bits)
    value_codes[..., :dim], value_scale = encode(values, bits)
    codes = [code_bytes(panels(key_codes.swapaxes(-1, -2)), bits), code_bytes(panels(value_codes), bits)]
    scales = [np.ascontiguousarray(scale).view(np.uint8) for scale in (key_scale, value_scale)]
    return np.concatenate([part.reshape(*outer, -1) for part in (*codes, *scales)], -1).reshape(-1)


def numbers_of(state: Bytes, kind: str, shape: tuple[int, int, int, int]) -> tuple[Floats, Floats]:
    positions, layers, heads, dim = shape
    bits, wide = BITS[kind], up(dim, LANES)
    columns = dim if kind in REALS else up(dim, BLOCK)
    strips = state.reshape(up(positions, SPAN) // SPAN, layers, heads, -1)
    outer, key_bytes, value_bytes = strips.shape[:3], SPAN * columns * bits // 8, SPAN * wide * bits // 8
    key_part, value_part, scales = np.split(strips, [key_bytes, key_bytes + value_bytes], -1)
    if kind in REALS:
        keys = key_part.copy().view(REALS[kind]).astype(np.float32).reshape(*outer, SPAN // LANES, dim, LANES)
        values = value_part.copy().view(REALS[kind]).astype(np.float32).reshape(*outer, wide // LANES, SPAN, LANES)
        keys, values = unpanel(keys).swapaxes(-1, -2), unpanel(values)[..., :dim]
    else:
        zero = np.float32(128 if bits == 8 else 7.5)
        keys = codes_from(key_part.reshape(*outer, SPAN // LANES, columns * bits // 32, LANES, 4), bits).astype(np.float32) - zero
        values = codes_from(value_part.reshape(*outer, wide // LANES, SPAN * bits // 32, LANES, 4), bits) - zero
        scale = scales.copy().view(np.float32).reshape(*outer, 2, SPAN, 1)
        keys = unpanel(keys).swapaxes(-1, -2)[..., :dim] * scale[..., 0, :, :]
        values = unpanel(values)[..., :dim].astype(np.float32) * scale[..., 1, :, :]
        if kind == "int4":
            keys, values = hadamard(keys), hadamard(values)
    flat = [x.transpose(0, 3, 1, 2, 4).reshape(-1, layers, heads, dim)[:positions] for x in (keys, values)]
    return flat[0], flat[1]
