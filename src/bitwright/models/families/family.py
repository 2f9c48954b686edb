"""What there is to say about a family of language models: its names, its config defaults and its switches.

A family is data. `reading.py` turns a config into an `Architecture` by it, `roles.py` finds the tensors by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

# Which layers see only a window of the past:
#   none          no layer, whatever the config says
#   all           every layer, if the config has a window
#   upper         layers from `max_window_layers` on, if `use_sliding_window` (Qwen)
#   interleaved   all but every n-th layer, n = `sliding_window_pattern` (Gemma)
Windows = Literal["none", "all", "upper", "interleaved"]


@dataclass(frozen=True)
class Family:
    """One family. `tensors` maps a role to a name, with `{layer}` for the layer's number and `{expert}` for the expert's; in
    `fused` tensors several roles lie one below the other, in the order given.

    `defaults` are what a missing config field means; the sizes of a model have none, except where the
    family's published configs leave them out.
    """

    name: str
    architectures: tuple[str, ...]  # "architectures" of config.json
    model_types: tuple[str, ...]  # "model_type" of config.json
    gguf: str  # "general.architecture" of a GGUF file
    tensors: Mapping[str, str]
    defaults: Mapping[str, Any]
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # tensor name -> roles, first rows first
    biases: tuple[str, ...] = ()  # bias roles every layer must have; other biases are taken where present
    windows: Windows = "none"
    activation_field: str = "hidden_act"
    norm_offset: float = 0.0
    qk_norm: bool = False
    post_norms: bool = False
    scaled_embedding: bool = False  # embeddings times sqrt(hidden_size)
    query_scalar: bool = False  # attention scale from query_pre_attn_scalar, not from head_dim
    attention_softcap: bool = False
    logit_softcap: bool = False
    rope_by_layer_type: bool = False  # full and windowed layers turn differently
    partial_rotary: bool = False
    mixture: bool = False  # every layer has experts and a router
    width_field: str = "intermediate_size"  # of the MLP, or of one expert
    normalized_routing: bool = False  # whatever "norm_topk_prob" says
