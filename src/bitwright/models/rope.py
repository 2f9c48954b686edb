"""Frequencies of rotary position embedding. Channel pair i turns by position * frequency[i].

    plain      f_i = theta^(-2i / dim)                                                    Su et al. 2021, arXiv:2104.09864
    linear     f_i / factor                                                               Chen et al. 2023, arXiv:2306.15595
    dynamic    theta * (factor * n / trained - (factor - 1))^(dim / (dim - 2)), n = max(context, trained)
    yarn       between f_i (fast pairs) and f_i / factor (slow pairs) by a ramp over i    Peng et al. 2023, arXiv:2309.00071
    llama3     the same idea, with a ramp over the wavelength                             arXiv:2407.21783, section 3.4
    longrope   f_i / short_i, or f_i / long_i past the trained context                    Ding et al. 2024, arXiv:2402.13753

yarn and longrope also multiply the sines and cosines by an attention factor. Arithmetic is float32 in the order that
models were trained and published with: at position 100,000 a last-bit difference in f_0 is already an angle.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.errors import ModelConfigError
from bitwright.models.architecture import Rope

Floats = npt.NDArray[np.float32]


def inverse_frequencies(rope: Rope, context: int) -> tuple[Floats, float]:
    """(dim / 2,) radians per position, and the factor on sine and cosine, for `context` positions in all.

    `context` matters to dynamic and longrope alone. Raises `ModelConfigError` on an unknown kind or a parameter
    that is missing, not positive or of the wrong length.
    """
    kind = rope.scaling.get("rope_type", rope.scaling.get("type", "default"))
    if not isinstance(kind, str) or kind not in KINDS:
        raise ModelConfigError(f"unknown rope scaling {kind!r}; known: {', '.join(KINDS)}")
    with np.errstate(all="ignore"):  # absurd parameters show in the result
        frequencies, attention_factor = KINDS[kind](rope, context)
    if not np.isfinite(frequencies).all() or not math.isfinite(attention_factor):
        raise ModelConfigError(
            f"rope scaling {kind!r} gives no finite frequencies; take the config.json published with the model"
        )
    return frequencies, attention_factor


def _powers(theta: float, dim: int) -> Floats:
    """theta^(2i / dim) for each pair i."""
    exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    powers: Floats = np.power(np.float32(theta), exponents)
    return powers


def _plain(rope: Rope, context: int) -> tuple[Floats, float]:
    return np.float32(1) / _powers(rope.theta, rope.dim), 1.0


def _linear(rope: Rope, context: int) -> tuple[Floats, float]:
    return _plain(rope, context)[0] / np.float32(_number(rope.scaling, "factor")), 1.0


def _dynamic(rope: Rope, context: int) -> tuple[Floats, float]:
    factor, trained = _number(rope.scaling, "factor"), _number(rope.scaling, "original_max_position_embeddings")
    if rope.dim <= 2:
        raise ModelConfigError(f"rope scaling 'dynamic' needs more than 2 rotary channels, not {rope.dim}; check head_dim")
    stretch = factor * max(context, trained) / trained - (factor - 1)
    return np.float32(1) / _powers(rope.theta * stretch ** (rope.dim / (rope.dim - 2)), rope.dim), 1.0


def _yarn(rope: Rope, context: int) -> tuple[Floats, float]:
    factor, trained = _number(rope.scaling, "factor"), _number(rope.scaling, "original_max_position_embeddings")
    fast, slow = _number(rope.scaling, "beta_fast", 32.0), _number(rope.scaling, "beta_slow", 1.0)
    if rope.theta == 1:
        raise ModelConfigError(
            "rope scaling 'yarn' needs a rope_theta other than 1; take the config.json published with the model"
        )

    def pair_with(rotations: float) -> float:
        """The (fractional) pair that makes this many rotations over the trained context."""
        return rope.dim * math.log(trained / (rotations * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = pair_with(fast), pair_with(slow)
    if rope.scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.dim - 1)
    high = high + 0.001 if low == high else high  # a step, not a division by zero
    ramp = (np.arange(rope.dim // 2, dtype=np.float32) - np.float32(low)) / np.float32(high - low)
    kept = np.float32(1) - np.clip(ramp, 0, 1)
    powers = _powers(rope.theta, rope.dim)
    stretched = np.float32(1) / (np.float32(factor) * powers)
    frequencies = stretched * (np.float32(1) - kept) + (np.float32(1) / powers) * kept
    return frequencies, _yarn_attention(rope.scaling, factor)


def _yarn_attention(scaling: Mapping[str, Any], factor: float) -> float:
    if scaling.get("attention_factor") is not None:
        return _number(scaling, "attention_factor")

    def temperature(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if scaling.get("mscale") and scaling.get("mscale_all_dim"):
        return temperature(_number(scaling, "mscale")) / temperature(_number(scaling, "mscale_all_dim"))
    return temperature(1.0)


def _llama3(rope: Rope, context: int) -> tuple[Floats, float]:
    factor, trained = _number(rope.scaling, "factor"), _number(rope.scaling, "original_max_position_embeddings")
    low, high = _number(rope.scaling, "low_freq_factor"), _number(rope.scaling, "high_freq_factor")
    if high <= low:
        raise ModelConfigError(f"rope scaling 'llama3' needs high_freq_factor above low_freq_factor, not {high} and {low}")
    plain = _plain(rope, context)[0]
    wavelength = np.float32(2 * math.pi) / plain
    stretched = plain / np.float32(factor)
    smooth = (np.float32(trained) / wavelength - np.float32(low)) / np.float32(high - low)
    between = (np.float32(1) - smooth) * plain / np.float32(factor) + smooth * plain
    long, short = wavelength > np.float32(trained / low), wavelength < np.float32(trained / high)
    return np.where(long, stretched, np.where(short, plain, between)), 1.0


def _longrope(rope: Rope, context: int) -> tuple[Floats, float]:
    factor, trained = _number(rope.scaling, "factor"), _number(rope.scaling, "original_max_position_embeddings")
    divisors = {name: _numbers(rope.scaling, name, rope.dim // 2) for name in ("short_factor", "long_factor")}
    chosen = divisors["long_factor" if context > trained else "short_factor"]
    if rope.scaling.get("attention_factor") is not None:
        attention_factor = _number(rope.scaling, "attention_factor")
    elif factor <= 1:
        attention_factor = 1.0
    elif trained <= 1:
        raise ModelConfigError("rope scaling 'longrope' needs original_max_position_embeddings above 1")
    else:
        attention_factor = math.sqrt(1 + math.log(factor) / math.log(trained))
    return np.float32(1) / (chosen * _powers(rope.theta, rope.dim)), attention_factor


def _number(scaling: Mapping[str, Any], name: str, default: float | None = None) -> float:
    """A number above 0; the default for null, absence and 0 where there is one."""
    value = scaling.get(name)
    if default is not None and not value:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1e-30 <= value <= 1e30:
        raise ModelConfigError(f"rope scaling: {name!r} must be a number above 0, not {value!r}"[:200])
    return float(value)


def _numbers(scaling: Mapping[str, Any], name: str, length: int) -> Floats:
    values = scaling.get(name)
    if not isinstance(values, list | tuple) or len(values) != length:
        raise ModelConfigError(f"rope scaling: {name!r} must be a list of {length} numbers, one for each pair of rotary channels")
    return np.array([_number({name: value}, name) for value in values], np.float32)


KINDS: dict[str, Callable[[Rope, int], tuple[Floats, float]]] = {
    "default": _plain,
    "linear": _linear,
    "dynamic": _dynamic,
    "yarn": _yarn,
    "llama3": _llama3,
    "longrope": _longrope,
}
