"""stories260K, a real language model of 260,000 parameters, from llama2.c's own file format to a Hugging Face directory.

The file: seven int32 (dim, hidden, layers, heads, kv heads, vocabulary, context), then float32 tensors in the order below;
rope there turns neighbouring channels, so rows of q and k are reordered to the halves that Hugging Face keeps.
The tokenizer: an int32, then for each token a float32 score, an int32 length and its bytes.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

from bitwright.models.gguf_tokenizer import read_tokenizer

DATA = Path(__file__).parents[2] / "shared/data"
MODEL, TOKENIZER = DATA / "models/llm/stories260K.bin", DATA / "models/llm/tok512.bin"
EXCERPT = DATA / "text/tinystories_excerpt.txt"


def make_stories(directory: Path) -> Path:
    """Write config.json, model.safetensors and the tokenizer into `directory`."""
    from safetensors.numpy import save_file

    header = struct.unpack("7i", MODEL.read_bytes()[:28])
    dim, hidden, layers, heads, kv_heads, vocabulary, context = header
    values = np.fromfile(MODEL, np.float32, offset=28)
    narrow = dim // heads * kv_heads
    shapes = {
        "embed_tokens": (vocabulary, dim),
        "input_layernorm": (layers, dim),
        "self_attn.q_proj": (layers, dim, dim),
        "self_attn.k_proj": (layers, narrow, dim),
        "self_attn.v_proj": (layers, narrow, dim),
        "self_attn.o_proj": (layers, dim, dim),
        "post_attention_layernorm": (layers, dim),
        "mlp.gate_proj": (layers, hidden, dim),
        "mlp.down_proj": (layers, dim, hidden),
        "mlp.up_proj": (layers, hidden, dim),
        "norm": (dim,),
    }
    tensors, at = {}, 0
    for name, shape in shapes.items():
        block = values[at : at + int(np.prod(shape))].reshape(shape)
        at += block.size
        if name in ("embed_tokens", "norm"):
            tensors[f"model.{name}.weight"] = block
            continue
        for layer in range(layers):
            rows = block[layer]
            if name.endswith(("q_proj", "k_proj")):
                rows = rows.reshape(-1, dim // heads // 2, 2, dim).swapaxes(1, 2).reshape(rows.shape)
            tensors[f"model.layers.{layer}.{name}.weight"] = np.ascontiguousarray(rows)
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / "model.safetensors")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": dim,
        "intermediate_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": abs(vocabulary),
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "hidden_act": "silu",
    }
    (directory / "config.json").write_text(json.dumps(config), "utf-8")
    read_tokenizer(tokenizer_metadata()).save(directory)
    return directory


def tokenizer_metadata() -> dict[str, object]:
    """The tokenizer as GGUF metadata says it, which is the same kind."""
    raw, at = TOKENIZER.read_bytes(), 4
    tokens, scores = [], []
    while at < len(raw):
        score, length = struct.unpack_from("fi", raw, at)
        tokens.append(raw[at + 8 : at + 8 + length].decode("utf-8", "replace").replace(" ", "\u2581"))
        scores.append(score)
        at += 8 + length
    tokens[:3] = ["<unk>", "<s>", "</s>"]
    types = [2, 3, 3] + [6 if token.startswith("<0x") else 1 for token in tokens[3:]]
    prefix = "tokenizer.ggml."
    return {
        f"{prefix}model": "llama",
        f"{prefix}tokens": tokens,
        f"{prefix}scores": scores,
        f"{prefix}token_type": types,
        f"{prefix}bos_token_id": 1,
        f"{prefix}eos_token_id": 2,
    }
