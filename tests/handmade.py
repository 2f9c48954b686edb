"""A small Llama in a Hugging Face directory, written with nothing but our own writer: no torch, no transformers.

`make_handmade` writes random weights, the same every time; `weights` gives them as float32.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

import tiny
from bitwright.artifact.safetensors_file import SafetensorsWriter
from bitwright.formats import FORMATS

HIDDEN, INNER, LAYERS, VOCABULARY = 64, 192, 2, tiny.VOCABULARY
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
}
FORMAT = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}
NUMPY = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}


def weights(tied: bool = False) -> dict[str, npt.NDArray[np.float32]]:
    """Random weights of every tensor."""
    rng = np.random.default_rng(11)
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        shapes |= {prefix + "input_layernorm.weight": (HIDDEN,), prefix + "post_attention_layernorm.weight": (HIDDEN,)}
        shapes |= {f"{prefix}self_attn.{kind}_proj.weight": (HIDDEN, HIDDEN) for kind in "qo"}
        shapes |= {f"{prefix}self_attn.{kind}_proj.weight": (HIDDEN // 2, HIDDEN) for kind in "kv"}
        shapes |= {f"{prefix}mlp.{kind}_proj.weight": (INNER, HIDDEN) for kind in ("gate", "up")}
        shapes |= {f"{prefix}mlp.down_proj.weight": (HIDDEN, INNER)}
    if not tied:
        shapes["lm_head.weight"] = (VOCABULARY, HIDDEN)
    return {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


def make_handmade(
    directory: Path,
    dtype: str = "F16",
    tied: bool = False,
    changed: dict[str, npt.NDArray[np.float32]] | None = None,
    tokenizer: bool = True,
) -> Path:
    """config.json, model.safetensors and a tokenizer. `changed` replaces weights by name; it may hold NaN."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(CONFIG | {"tie_word_embeddings": tied}), "utf-8")
    tensors = weights(tied) | (changed or {})
    with SafetensorsWriter(directory / "model.safetensors", {name: (dtype, x.shape) for name, x in tensors.items()}) as writer:
        for name, values in tensors.items():
            finite = np.nan_to_num(values, posinf=0, neginf=0)
            stored = FORMATS[FORMAT[dtype]].encode(finite).view(NUMPY[dtype])
            if dtype != "BF16":
                stored = np.where(np.isfinite(values), stored, values).astype(NUMPY[dtype])
            writer.write(name, stored)
    if tokenizer:
        tiny.make_tokenizer(directory)
    return directory
