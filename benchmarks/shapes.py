"""Models of random weights in the shape of larger ones, cut to a few layers: what a token costs depends on the shapes and
the bits, not on the values.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import bitwright


@dataclass(frozen=True)
class Shape:
    """A model of the Llama family with `layers` of its `whole` number of layers; a tied head is the embedding."""

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    layers: int
    whole: int
    vocabulary: int = 8192
    tied: bool = False


def random_model(shape: Shape, directory: Path) -> Path:
    """A Hugging Face directory in fp16. The same million random numbers fill every matrix."""
    hidden = shape.hidden
    numbers = (np.random.default_rng(0).normal(size=1 << 20) / np.sqrt(hidden)).astype(np.float16)
    narrow = hidden // shape.heads * shape.kv_heads
    sizes = {name: (shape.vocabulary, hidden) for name in ("model.embed_tokens", *([] if shape.tied else ["lm_head"]))}
    ones = ["model.norm"]
    for layer in range(shape.layers):
        at = f"model.layers.{layer}"
        ones += [f"{at}.input_layernorm", f"{at}.post_attention_layernorm"]
        sizes |= {f"{at}.self_attn.{kind}_proj": (hidden, hidden) for kind in "qo"}
        sizes |= {f"{at}.self_attn.{kind}_proj": (narrow, hidden) for kind in "kv"}
        sizes |= {f"{at}.mlp.{kind}_proj": (shape.intermediate, hidden) for kind in ("gate", "up")}
        sizes[f"{at}.mlp.down_proj"] = (hidden, shape.intermediate)
    tensors = {f"{name}.weight": np.resize(numbers, size) for name, size in sizes.items()}
    tensors |= {f"{name}.weight": np.ones(hidden, np.float16) for name in ones}
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": hidden, "vocab_size": shape.vocabulary}
    config |= {"intermediate_size": shape.intermediate, "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads}
    config |= {"num_key_value_heads": shape.kv_heads, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 1e4}
    config |= {"hidden_act": "silu", "tie_word_embeddings": shape.tied, "dtype": "float16"}
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config), "utf-8")
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def artifact(source: Path, scheme: str, out: Path) -> Path:
    """With the quickest fit: nobody reads what these models say."""
    bitwright.quantize(bitwright.load(source), bitwright.Recipe.uniform(scheme, fitting="minmax")).save(out)
    return out
