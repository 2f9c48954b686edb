"""What the tests of the command line share: a tiny Llama made without torch, and what a command ends with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import tiny
from bitwright.artifact.safetensors_file import SafetensorsWriter

HIDDEN, MLP, LAYERS, HEADS, KEY_VALUE_HEADS = 64, 128, 2, 4, 2
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": tiny.VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": MLP,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEY_VALUE_HEADS,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
}


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on stdout; anything beside it would not parse."""
        return json.loads(self.out)


Command = Callable[..., Outcome]


def tensors() -> dict[str, np.ndarray]:
    """Random weights that keep activations near 1, by Hugging Face name."""
    random = np.random.default_rng(11)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return (random.normal(size=(rows, columns)) * 1.2 / np.sqrt(columns)).astype(np.float32)

    key_value = HIDDEN // HEADS * KEY_VALUE_HEADS
    made = {"model.embed_tokens.weight": matrix(tiny.VOCABULARY, HIDDEN), "model.norm.weight": np.ones(HIDDEN, np.float32)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            made[f"{prefix}{name}.weight"] = np.ones(HIDDEN, np.float32)
        for name, rows, columns in (
            ("self_attn.q_proj", HIDDEN, HIDDEN),
            ("self_attn.k_proj", key_value, HIDDEN),
            ("self_attn.v_proj", key_value, HIDDEN),
            ("self_attn.o_proj", HIDDEN, HIDDEN),
            ("mlp.gate_proj", MLP, HIDDEN),
            ("mlp.up_proj", MLP, HIDDEN),
            ("mlp.down_proj", HIDDEN, MLP),
        ):
            made[f"{prefix}{name}.weight"] = matrix(rows, columns)
    return made


def write_model(directory: Path, weights: dict[str, np.ndarray]) -> Path:
    """A Hugging Face directory."""
    tiny.make_tokenizer(directory)
    (directory / "config.json").write_text(json.dumps(CONFIG), "utf-8")
    with SafetensorsWriter(
        directory / "model.safetensors", {name: ("F32", value.shape) for name, value in weights.items()}
    ) as file:
        for name, value in weights.items():
            file.write(name, value)
    return directory
