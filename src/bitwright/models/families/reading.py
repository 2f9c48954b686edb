"""From a config.json to an `Architecture`, by the table of families."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bitwright.errors import ModelConfigError, UnknownFamilyError
from bitwright.models.architecture import Activation, Architecture
from bitwright.models.families.family import Family
from bitwright.models.families.fields import count, flag, integer, number, optional_number, section, texts
from bitwright.models.families.ropes import FULL, WINDOWED, read_ropes
from bitwright.models.families.table import DEFAULTS, FAMILIES

ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size")
_COUNTS = ("num_experts", "num_local_experts")  # spellings of one number


def family_of(config: Mapping[str, Any]) -> Family:
    """The family of a config.json, by "architectures" or, without that, by "model_type". Raises `UnknownFamilyError`."""
    architectures, model_type = texts(config, "architectures"), config.get("model_type")
    for family in FAMILIES.values():
        if (architectures[0] in family.architectures) if architectures else (model_type in family.model_types):
            return family
    name = architectures[0] if architectures else model_type
    if not isinstance(name, str) or not name:
        raise ModelConfigError(
            "config.json names neither 'architectures' nor 'model_type'; take the one published with the model"
        )
    raise UnknownFamilyError(f"no facts about {name[:80]!r}; known: {', '.join(_known_names())}")


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The language model's own config: of one that also sees images, the `text_config` in it, otherwise the config itself."""
    if "text_config" not in config:
        return dict(config)
    text = section(config, "text_config")
    family = family_of(config)
    kept = {key: config[key] for key in ("tie_word_embeddings", "quantization_config") if key in config}
    kept |= {
        key: config[key] for key in ("bos_token_id", "eos_token_id", "dtype", "torch_dtype") if key in config and key not in text
    }
    return text | kept | {"architectures": [family.architectures[0]], "model_type": family.model_types[0]}


def read_architecture(config: Mapping[str, Any]) -> Architecture:
    """What a config.json describes. Raises `UnknownFamilyError` and `ModelConfigError`."""
    family = family_of(config)
    config = text_config(config)
    _refuse_unsupported(family, config)
    config = DEFAULTS | dict(family.defaults) | config
    hidden_size, layers = integer(config, "hidden_size"), integer(config, "num_hidden_layers")
    heads, kv_heads, head_dim = _heads(config, hidden_size)
    windows = _windows(family, config, layers)
    query_scalar = number(config, "query_pre_attn_scalar") if family.query_scalar else float(head_dim)
    ropes = read_ropes(family, config, head_dim)
    experts, experts_per_token = _experts(family, config)
    return Architecture(
        family=family.name,
        hidden_size=hidden_size,
        intermediate_size=integer(config, family.width_field),
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=integer(config, "vocab_size"),
        context_length=integer(config, "max_position_embeddings"),
        ropes=ropes,
        rope_of_layer=tuple(int(len(ropes) > 1 and window > 0) for window in windows),
        window_of_layer=windows,
        norm_epsilon=number(config, "rms_norm_eps"),
        norm_offset=family.norm_offset,
        activation=_activation(family, config),
        embedding_scale=math.sqrt(hidden_size) if family.scaled_embedding else 1.0,
        attention_scale=1.0 / math.sqrt(query_scalar),
        attention_softcap=optional_number(config, "attn_logit_softcapping") if family.attention_softcap else 0.0,
        logit_softcap=optional_number(config, "final_logit_softcapping") if family.logit_softcap else 0.0,
        tied_head=flag(config, "tie_word_embeddings"),
        qk_norm=family.qk_norm,
        post_norms=family.post_norms,
        experts=experts,
        experts_per_token=experts_per_token,
        normalized_routing=family.mixture and (family.normalized_routing or flag(config, "norm_topk_prob")),
    )


def _refuse_unsupported(family: Family, config: Mapping[str, Any]) -> None:
    """What the families are known to come with and the engine does not compute."""
    if config.get("quantization_config"):
        raise ModelConfigError(
            "this model is quantized already (quantization_config in config.json); start from the original weights"
        )
    experts = [name for name in _EXPERTS if config.get(name)]
    if experts and not family.mixture:
        raise ModelConfigError(
            f"{family.name} with a mixture of experts is not supported ({experts[0]} in config.json); use a dense model of it"
        )
    if family.mixture and (config.get("mlp_only_layers") or config.get("decoder_sparse_step") not in (None, 1)):
        raise ModelConfigError(
            "layers without experts between others are not supported (mlp_only_layers or decoder_sparse_step in config.json); "
            "use a model whose layers are alike"
        )
    if family.mixture and family.windows == "none" and flag(config, "use_sliding_window"):
        raise ModelConfigError(
            f"sliding windows are not supported in {family.name} (use_sliding_window in config.json); use a model without them"
        )
    if flag(config, "mlp_bias"):
        raise ModelConfigError("biases in the MLP are not supported (mlp_bias in config.json); use a model without them")
    if flag(config, "use_bidirectional_attention"):
        raise ModelConfigError(
            "this model attends both ways (use_bidirectional_attention in config.json); use a causal language model"
        )


def _experts(family: Family, config: Mapping[str, Any]) -> tuple[int, int]:
    """Experts of a layer, and how many of them a token goes through; 0 and 0 where the MLP is one."""
    if not family.mixture:
        return 0, 0
    given = [name for name in _COUNTS if config.get(name) is not None] or [_COUNTS[0]]
    found = {integer(config, name) for name in given}
    if len(found) > 1:
        raise ModelConfigError(f"config.json: {' and '.join(_COUNTS)} are one number in two spellings; remove one of them")
    experts, per_token = found.pop(), integer(config, "num_experts_per_tok")
    if per_token > experts:
        raise ModelConfigError(f"config.json: a token goes through {per_token} of {experts} experts; state at most all of them")
    return experts, per_token


def _heads(config: Mapping[str, Any], hidden_size: int) -> tuple[int, int, int]:
    """Query heads, key-value heads and channels of a head."""
    heads = integer(config, "num_attention_heads")
    kv_heads = heads if config.get("num_key_value_heads") is None else integer(config, "num_key_value_heads")
    if heads % kv_heads:
        raise ModelConfigError(f"config.json: {heads} attention heads cannot share {kv_heads} key-value heads; state a divisor")
    if config.get("head_dim") is not None:
        return heads, kv_heads, integer(config, "head_dim")
    if hidden_size % heads:
        raise ModelConfigError(f"config.json: hidden_size {hidden_size} is no multiple of {heads} heads; state 'head_dim'")
    return heads, kv_heads, integer({"head_dim": hidden_size // heads}, "head_dim")


def _activation(family: Family, config: Mapping[str, Any]) -> Activation:
    name = config.get(family.activation_field)
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ModelConfigError(f"config.json: unknown {family.activation_field} {name!r}; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _windows(family: Family, config: Mapping[str, Any], layers: int) -> tuple[int, ...]:
    """Tokens that each layer sees, 0 for all."""
    switched_off = family.windows == "none" or (family.windows == "upper" and not flag(config, "use_sliding_window"))
    window = 0 if switched_off else count(config, "sliding_window")
    types = texts(config, "layer_types") if family.windows in ("upper", "interleaved") else []
    if not types:
        windowed = _windowed_layers(family, config, layers)
    elif len(types) != layers or not set(types) <= {FULL, WINDOWED}:
        raise ModelConfigError(f"config.json: 'layer_types' must name {FULL} or {WINDOWED} for each of {layers} layers")
    else:
        windowed = [kind == WINDOWED for kind in types]
        if any(windowed) and not window:
            raise ModelConfigError(
                "config.json: 'layer_types' has windowed layers but 'sliding_window' is not in use; state both or neither"
            )
    if family.windows == "interleaved" and not window:
        raise ModelConfigError(
            f"config.json lacks 'sliding_window', which {family.name} needs; take the one published with the model"
        )
    return tuple(window if limited else 0 for limited in windowed)


def _windowed_layers(family: Family, config: Mapping[str, Any], layers: int) -> list[bool]:
    """Which layers have a window where the config does not list them."""
    if family.windows == "interleaved":
        period = integer(config, "sliding_window_pattern")
        return [(layer + 1) % period != 0 for layer in range(layers)]
    first = count(config, "max_window_layers") if family.windows == "upper" else 0
    return [layer >= first for layer in range(layers)]


def _known_names() -> list[str]:
    return [name for family in FAMILIES.values() for name in family.architectures]
