"""The rotary embeddings a config asks for, in the three ways configs spell them:

    rope_theta + rope_scaling {type or rope_type, ...}            transformers up to 4
    the same + rope_local_base_freq for windowed layers           Gemma 3
    rope_parameters {rope_type, rope_theta, ...}, or one such     transformers from 5
        object per layer type: full_attention, sliding_attention

`Rope.scaling` comes out complete: everything `rope.inverse_frequencies` needs lies in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bitwright.errors import ModelConfigError
from bitwright.models.architecture import Rope
from bitwright.models.families.family import Family
from bitwright.models.families.fields import integer, number, section
from bitwright.models.rope import inverse_frequencies

FULL, WINDOWED = "full_attention", "sliding_attention"


def read_ropes(family: Family, config: Mapping[str, Any], head_dim: int) -> tuple[Rope, ...]:
    """One Rope, or two for families whose windowed layers have their own: (full, windowed)."""
    parameters = section(config, "rope_parameters")
    nested = bool({FULL, WINDOWED} & set(parameters))
    if nested and not family.rope_by_layer_type:
        raise ModelConfigError(f"config.json: {family.name} has one rope for all layers; write 'rope_parameters' as one object")
    if parameters and not nested and family.rope_by_layer_type:
        raise ModelConfigError(
            f"config.json: 'rope_parameters' of {family.name} takes one object per layer type: {FULL}, {WINDOWED}"
        )
    if not family.rope_by_layer_type:
        return (_rope(family, config, section(config, "rope_scaling") or parameters, head_dim),)
    full = section(parameters, FULL) | section(config, "rope_scaling")
    windowed = {"rope_theta": config["rope_local_base_freq"]} | section(parameters, WINDOWED)
    return (_rope(family, config, full, head_dim), _rope(family, config, windowed, head_dim))


def _rope(family: Family, config: Mapping[str, Any], parameters: dict[str, Any], head_dim: int) -> Rope:
    """One checked Rope of a flat object of parameters."""
    theta = number({"rope_theta": config["rope_theta"]} | parameters, "rope_theta")
    scaling = {key: value for key, value in parameters.items() if key not in ("rope_theta", "partial_rotary_factor", "type")}
    kind = parameters.get("rope_type") or parameters.get("type") or "default"
    if family.name == "phi3" and kind in ("su", "yarn"):
        kind = "longrope"  # what early Phi-3 configs called it
    scaling = _completed(kind, scaling, config) if kind != "default" else {}
    rope = Rope(theta, _turning_channels(family, config, parameters, head_dim), scaling)
    inverse_frequencies(rope, integer(config, "max_position_embeddings"))  # refuses what does not add up
    return rope


def _completed(kind: object, scaling: dict[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The scaling with its kind and the trained context length, and for longrope and yarn with its factor."""
    longest = integer(config, "max_position_embeddings")
    if kind == "dynamic":
        trained = longest
    elif config.get("original_max_position_embeddings") is not None:
        trained = integer(config, "original_max_position_embeddings")
    else:
        trained = integer({"original_max_position_embeddings": longest} | scaling, "original_max_position_embeddings")
    scaling = scaling | {"rope_type": kind, "original_max_position_embeddings": trained}
    if kind in ("yarn", "longrope") and scaling.get("factor") is None:
        scaling["factor"] = longest / trained
    return scaling


def _turning_channels(family: Family, config: Mapping[str, Any], parameters: Mapping[str, Any], head_dim: int) -> int:
    """How many channels of a head turn."""
    name = "partial_rotary_factor"
    share = parameters.get(name, config.get(name))
    fraction = 1.0 if share is None else number({name: share}, name)
    if fraction > 1 or (fraction < 1 and not family.partial_rotary):
        raise ModelConfigError(f"config.json: {name!r} of {fraction} does not fit {family.name}; remove it or set it to 1.0")
    dim = int(head_dim * fraction)
    if dim < 2 or dim % 2:
        raise ModelConfigError(
            f"config.json: rotary embedding turns channels in pairs; head_dim * {name} gives {dim}, not an even number"
        )
    return dim
