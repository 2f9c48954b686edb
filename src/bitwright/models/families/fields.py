"""Typed, bounded access to a config.json. It comes from anywhere, so nothing in it is believed.

Every function raises `ModelConfigError` that names the field, what it holds and what it may hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bitwright.errors import ModelConfigError

# Ten times what any published model has, and small enough that products of three stay far from 2**63.
LARGEST = {
    "hidden_size": 1 << 17,
    "intermediate_size": 1 << 20,
    "moe_intermediate_size": 1 << 20,
    "num_experts": 1 << 12,
    "num_local_experts": 1 << 12,
    "num_experts_per_tok": 1 << 7,  # as native/include/bitwright/model.h has it
    "num_hidden_layers": 1 << 10,
    "num_attention_heads": 1 << 12,
    "num_key_value_heads": 1 << 12,
    "head_dim": 1 << 12,
    "vocab_size": 1 << 22,
}
LARGEST_POSITION = 1 << 30  # positions, windows and layer counts that only compare with them
LARGEST_NUMBER = 1e30  # beyond it float32 has little left; its inverse bounds from below


def integer(config: Mapping[str, Any], name: str) -> int:
    """A whole number from 1 to the field's bound."""
    if config.get(name) is None:
        raise ModelConfigError(f"config.json lacks {name!r}; take the config.json published with the model")
    value, largest = config[name], LARGEST.get(name, LARGEST_POSITION)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
        raise ModelConfigError(f"config.json: {name!r} must be a whole number from 1 to {largest}, not {_shown(value)}")
    return value


def count(config: Mapping[str, Any], name: str) -> int:
    """A whole number from 0; null and absence are 0."""
    return 0 if config.get(name) in (None, 0) else integer(config, name)


def number(config: Mapping[str, Any], name: str) -> float:
    """A number above 0 that float32 holds with room to spare."""
    value = config.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 / LARGEST_NUMBER <= value <= LARGEST_NUMBER:
        raise ModelConfigError(f"config.json: {name!r} must be a number above 0, not {_shown(value)}")
    return float(value)


def optional_number(config: Mapping[str, Any], name: str) -> float:
    """As `number`; null and absence are 0."""
    return 0.0 if config.get(name) is None else number(config, name)


def flag(config: Mapping[str, Any], name: str) -> bool:
    """True or false; null and absence are false."""
    value = config.get(name)
    if value is not None and not isinstance(value, bool):
        raise ModelConfigError(f"config.json: {name!r} must be true or false, not {_shown(value)}")
    return bool(value)


def section(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A nested object; null and absence are empty."""
    value = config.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise ModelConfigError(f"config.json: {name!r} must be an object, not {_shown(value)}")
    return dict(value or {})


def texts(config: Mapping[str, Any], name: str) -> list[str]:
    """A list of strings; null and absence are empty."""
    value = config.get(name)
    if value is not None and not (isinstance(value, list | tuple) and all(isinstance(entry, str) for entry in value)):
        raise ModelConfigError(f"config.json: {name!r} must be a list of strings, not {_shown(value)}")
    return list(value or [])


def _shown(value: object) -> str:
    """The value as it may stand in a one-line message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
