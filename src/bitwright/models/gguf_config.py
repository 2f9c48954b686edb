"""GGUF metadata as a config.json, so that one table of families reads both.

Keys are `<architecture>.<what>`: see docs/gguf.md of ggml and the converters that write them. Numbers are float32 there;
the config gets the shortest decimal that rounds to the same float32: 1e-05, not 9.99999974e-06.

Per-channel RoPE divisors (tensor rope_freqs, how GGUF holds llama3-type scaling) become a `longrope` with equal short
and long factors and no attention factor: exactly the function in the file, whatever parameters it was made from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bitwright.errors import ModelConfigError, UnknownFamilyError
from bitwright.models.families import FAMILIES, Family
from bitwright.models.gguf_file import shown

Metadata = Mapping[str, Any]
_CURE = "convert the model anew"

# config.json field -> metadata key behind "<architecture>."
_REQUIRED = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}
_OPTIONAL = {
    "num_key_value_heads": "attention.head_count_kv",
    "rope_theta": "rope.freq_base",
    "rope_local_base_freq": "rope.freq_base_swa",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
_SPECIAL_IDS = {"bos_token_id": "tokenizer.ggml.bos_token_id", "eos_token_id": "tokenizer.ggml.eos_token_id"}
# Gemma's 27-billion models alone scale attention by hidden_size / heads; GGUF leaves that to the number of layers.
_SCALED_BY_WIDTH = {("gemma2", 46), ("gemma3", 62)}


@dataclass(frozen=True)
class TensorFacts:
    """What only the tensors tell: rows of the embedding, whether there is a head, divisors of the RoPE frequencies."""

    vocab_size: int
    tied_head: bool
    divisors: Mapping[str, Sequence[float]] = field(default_factory=dict)  # rope_freqs, rope_factors_long, ..._short


def family_of_metadata(metadata: Metadata) -> Family:
    """Raises `UnknownFamilyError` for an architecture without facts, `ModelConfigError` for a file that names none."""
    name = metadata.get("general.architecture")
    if not isinstance(name, str) or not name:
        raise ModelConfigError(f"this GGUF file names no general.architecture; {_CURE}")
    if _count(metadata, "split.count") > 1:
        raise ModelConfigError("this GGUF file is one part of several; join them with llama-gguf-split --merge")
    if _count(metadata, f"{name}.expert_count") > 0:
        raise ModelConfigError("mixtures of experts are not read from GGUF; give the original model's directory or hub id")
    if name == "llama" and _count(metadata, "llama.attention.sliding_window") > 0:
        return FAMILIES["mistral"]
    for family in FAMILIES.values():
        if family.gguf == name:
            return family
    known = ", ".join(sorted({family.gguf for family in FAMILIES.values()}))
    raise UnknownFamilyError(f"no facts about GGUF architecture {shown(name)}; known: {known}")


def synthesize_config(metadata: Metadata, facts: TensorFacts) -> dict[str, Any]:
    """A config.json content. Raises `ModelConfigError` for keys that are missing or contradict each other."""
    family = family_of_metadata(metadata)
    config: dict[str, Any] = {
        "architectures": [family.architectures[0]],
        "model_type": family.model_types[0],
        "vocab_size": facts.vocab_size,
        "tie_word_embeddings": facts.tied_head,
    }
    for name, key in _REQUIRED.items():
        config[name] = _value(metadata, f"{family.gguf}.{key}")
        if config[name] is None:
            raise ModelConfigError(f"this GGUF file lacks {family.gguf}.{key}; {_CURE}")
    for name, key in _OPTIONAL.items():
        if f"{family.gguf}.{key}" in metadata:
            config[name] = _value(metadata, f"{family.gguf}.{key}")
    config |= {name: metadata[key] for name, key in _SPECIAL_IDS.items() if isinstance(metadata.get(key), int)}
    config |= _heads(metadata, family, config) | _windows(metadata, family)
    scaling = _rope_scaling(metadata, family, facts)
    if scaling:
        config["rope_scaling"] = scaling
        if "original_max_position_embeddings" in scaling:
            config["original_max_position_embeddings"] = scaling["original_max_position_embeddings"]
    return config


def _heads(metadata: Metadata, family: Family, config: Mapping[str, Any]) -> dict[str, Any]:
    """Head size, the share of it that turns, and Gemma's attention scale."""
    prefix, heads, hidden = family.gguf, config["num_attention_heads"], config["hidden_size"]
    if not _whole(heads) or not _whole(hidden):
        raise ModelConfigError(f"{prefix}.embedding_length and .attention.head_count must be whole numbers above 0; {_CURE}")
    length = _value(metadata, f"{prefix}.attention.key_length")
    head_dim = hidden // heads if length is None else length
    value_length = _value(metadata, f"{prefix}.attention.value_length")
    if not _whole(head_dim) or value_length not in (None, head_dim):
        raise ModelConfigError(
            f"heads with keys of {shown(length)} and values of {shown(value_length)} channels are not supported"
        )
    found: dict[str, Any] = {"head_dim": head_dim}
    turning = _value(metadata, f"{prefix}.rope.dimension_count")
    if turning is not None and turning != head_dim:
        if not _whole(turning):
            raise ModelConfigError(f"{prefix}.rope.dimension_count must be a whole number above 0, not {shown(turning)}; {_CURE}")
        found["partial_rotary_factor"] = turning / head_dim
    if family.query_scalar:
        by_width = (family.name, config["num_hidden_layers"]) in _SCALED_BY_WIDTH
        found["query_pre_attn_scalar"] = hidden // heads if by_width else head_dim
    return found


def _windows(metadata: Metadata, family: Family) -> dict[str, Any]:
    """Sliding windows; a pattern is a number (every n-th layer sees all) or one truth value for each layer."""
    found: dict[str, Any] = {}
    window = _count(metadata, f"{family.gguf}.attention.sliding_window")
    if window and family.windows != "upper":  # Qwen's are never in use in the models published as GGUF
        found["sliding_window"] = window
    elif family.windows == "all":
        found["sliding_window"] = None
    pattern = metadata.get(f"{family.gguf}.attention.sliding_window_pattern")
    if isinstance(pattern, list):
        found["layer_types"] = ["sliding_attention" if windowed else "full_attention" for windowed in pattern]
    elif pattern is not None:
        found["sliding_window_pattern"] = pattern
    return found


def _rope_scaling(metadata: Metadata, family: Family, facts: TensorFacts) -> dict[str, Any]:
    """A rope scaling object as config.json spells it, empty for none."""
    prefix = f"{family.gguf}.rope.scaling."
    trained = _value(metadata, prefix + "original_context_length") or _value(metadata, f"{family.gguf}.context_length")
    attention_factor = _value(metadata, prefix + "attn_factor")
    if "rope_freqs" in facts.divisors:
        same = list(facts.divisors["rope_freqs"])
        known = {"factor": 1.0, "original_max_position_embeddings": trained}
        return {"rope_type": "longrope", "short_factor": same, "long_factor": same} | known
    if "rope_factors_long" in facts.divisors and "rope_factors_short" in facts.divisors:
        short, long = list(facts.divisors["rope_factors_short"]), list(facts.divisors["rope_factors_long"])
        found = {"rope_type": "longrope", "short_factor": short, "long_factor": long, "original_max_position_embeddings": trained}
        return found | ({} if attention_factor is None else {"attention_factor": attention_factor})
    factor = _value(metadata, prefix + "factor") or _value(metadata, f"{family.gguf}.rope.scale_linear")
    kind = metadata.get(prefix + "type", "linear")
    if kind == "yarn":
        return _yarn(metadata, prefix, {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": trained})
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor} if factor not in (None, 1, 1.0) else {}
    if kind in ("none", "longrope"):  # longrope without factors: the short models of a family that has long ones
        return {}
    raise ModelConfigError(f"unknown {prefix}type {shown(kind)}; known: none, linear, yarn, longrope")


def _yarn(metadata: Metadata, prefix: str, scaling: dict[str, Any]) -> dict[str, Any]:
    names = {"beta_fast": "yarn_beta_fast", "beta_slow": "yarn_beta_slow", "attention_factor": "yarn_attn_factor"}
    given = {name: _value(metadata, prefix + key) for name, key in names.items()}
    return scaling | {name: value for name, value in given.items() if value is not None}


def _value(metadata: Metadata, key: str) -> Any:
    """A number as config.json would hold it; a list by layers only if all its entries are the same."""
    value = metadata.get(key)
    if isinstance(value, list):
        if len(set(map(str, value))) != 1:
            raise ModelConfigError(f"{key} differs from layer to layer, which is not supported; use a model of one shape")
        value = value[0]
    if isinstance(value, list):
        raise ModelConfigError(f"{key} holds lists of lists, where a number belongs; {_CURE}")
    if isinstance(value, float):
        with np.errstate(over="ignore"):
            return float(str(np.float32(value)))
    return value


def _count(metadata: Metadata, key: str) -> int:
    """A whole number; absence is 0."""
    value = _value(metadata, key)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ModelConfigError(f"{key} must be a whole number, not {shown(value)}; {_CURE}")
    return value


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
