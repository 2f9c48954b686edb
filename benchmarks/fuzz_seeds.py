"""Small valid files to damage: two artifacts and three GGUF files, which between them hold every kind of part.

`write_seeds` makes the same files every time, of random weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import tokenizers

from bitwright.artifact import Manifest, StoredTensor, write_artifact
from bitwright.core import Scheme
from bitwright.fitting import FITTING
from bitwright.models.base import Dense, Packed
from bitwright.models.families import read_architecture, role_shape
from bitwright.models.families.table import FAMILIES
from bitwright.models.tokenizer import Tokenizer
from bitwright.quantization.matrix import packed_from
from bitwright.rounding import ROUNDING

HIDDEN, LAYERS = 64, 2
SPECIAL = ["<|start|>", "<|end|>"]
TEXT = "The quick brown fox jumps over the lazy dog; numbers such as 12, 345 and 6789 are words too."
TEMPLATE = "{% for message in messages %}{{ message['content'] + eos_token }}{% endfor %}"
SCHEMES = ["int4-g32", "int3-g16-affine-sbf16", "int8-tensor", "fixed5-channel", "int2-g64-affine-sfp32", "bf16", "fp32"]
BLOCK_KINDS = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL"]  # blocks of up to 32 weights
SUPERBLOCK_KINDS = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ2_XXS", "IQ3_S", "IQ4_XS", "TQ1_0", "TQ2_0"]  # of 256


def write_seeds(directory: Path) -> list[Path]:
    """Valid files, to be damaged in copies."""
    directory.mkdir(parents=True, exist_ok=True)
    backend = _backend()
    return [
        _artifact(directory / "llama", "LlamaForCausalLM", "llama", backend),
        _artifact(directory / "gemma3", "Gemma3ForCausalLM", "gemma3_text", backend),
        _gguf(directory / "blocks.gguf", HIDDEN, BLOCK_KINDS, _byte_level(backend)),
        _gguf(directory / "superblocks.gguf", 256, SUPERBLOCK_KINDS, _byte_level(backend)),
        _gguf(directory / "sentence_piece.gguf", HIDDEN, ["F16"], _sentence_piece()),
    ]


def _backend() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([TEXT], trainer)
    return backend


def _artifact(directory: Path, architecture: str, model_type: str, backend: tokenizers.Tokenizer) -> Path:
    config = {
        "architectures": [architecture],
        "model_type": model_type,
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": backend.get_vocab_size(),
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "sliding_window": 16,
        "tie_word_embeddings": False,
    }
    tensors = _artifact_tensors(config)
    manifest = Manifest(config, {name: StoredTensor.of(tensor) for name, tensor in tensors.items()}, "0")
    tokenizer = Tokenizer(backend, 0, frozenset([1]), TEMPLATE, True, 1)
    write_artifact(directory, manifest, tensors.__getitem__, tokenizer.save)
    return directory


def _artifact_tensors(config: dict[str, Any]) -> dict[str, Packed | Dense]:
    """Every tensor of the family, its matrices in each of SCHEMES in turn."""
    rng, architecture = np.random.default_rng(5), read_architecture(config)
    tensors: dict[str, Packed | Dense] = {}
    for layer in range(LAYERS):
        for role, template in FAMILIES[architecture.family].tensors.items():
            shape = role_shape(architecture, role)
            values = rng.normal(0, 0.1, shape).astype(np.float32)
            scheme = Scheme.parse(SCHEMES[len(tensors) % len(SCHEMES)])
            if len(shape) == 1 or not scheme.scaled:
                stored: Packed | Dense = Dense("fp32", values)
            else:
                stored = packed_from(ROUNDING["nearest"](values, scheme, FITTING["minmax"]))
            tensors[template.format(layer=layer)] = stored
    return tensors


def _byte_level(backend: tokenizers.Tokenizer) -> dict[str, Any]:
    tokens = sorted(backend.get_vocab(), key=backend.get_vocab().__getitem__)
    known = set(tokens)
    merges = [
        f"{token[:cut]} {token[cut:]}"
        for token in tokens
        for cut in range(1, len(token))
        if {token[:cut], token[cut:]} <= known and token not in SPECIAL
    ]
    return {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": tokens,
        "token_type": [3 if token in SPECIAL else 1 for token in tokens],
        "merges": merges,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "add_bos_token": True,
    }


def _sentence_piece() -> dict[str, Any]:
    words = ["\N{LOWER ONE EIGHTH BLOCK}", *sorted(set(TEXT) - {" "}), "th", "\N{LOWER ONE EIGHTH BLOCK}th", "qu", "ick", "ic"]
    tokens = ["<unk>", "<s>", "</s>", *[f"<0x{value:02X}>" for value in range(256)], *words]
    return {
        "model": "llama",
        "tokens": tokens,
        "token_type": [2, 3, 3, *[6] * 256, *[1] * len(words)],
        "scores": [0.0] * 259 + [-float(rank) for rank in range(len(words))],
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def _gguf(path: Path, hidden: int, kinds: list[str], vocabulary: dict[str, Any]) -> Path:
    """A llama whose matrices are in each of `kinds` in turn, filled with random bytes where the package cannot encode."""
    facts = {
        "embedding_length": hidden,
        "feed_forward_length": hidden,
        "block_count": LAYERS,
        "context_length": 128,
        "attention.head_count": 4,
        "attention.head_count_kv": 4,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": hidden // 4,
    }
    writer = gguf.GGUFWriter(path, "llama")
    fields = {f"llama.{key}": value for key, value in facts.items()}
    fields |= {f"tokenizer.ggml.{key}": value for key, value in vocabulary.items()} | {"tokenizer.chat_template": TEMPLATE}
    add: dict[type, Any] = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }
    for key, value in fields.items():
        add[type(value)](key, value)
    _gguf_tensors(writer, hidden, kinds, len(vocabulary["tokens"]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf_tensors(writer: gguf.GGUFWriter, hidden: int, kinds: list[str], vocabulary: int) -> None:
    rng = np.random.default_rng(6)
    layer_matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (vocabulary, hidden), "output_norm": (hidden,)}
    for layer in range(LAYERS):
        shapes |= {f"blk.{layer}.{kind}": (hidden,) for kind in ("attn_norm", "ffn_norm")}
        shapes |= {f"blk.{layer}.{kind}": (hidden, hidden) for kind in layer_matrices}
    for index, (name, shape) in enumerate(shapes.items()):
        kind = gguf.GGMLQuantizationType[kinds[index % len(kinds)] if len(shape) == 2 else "F32"]
        values = rng.normal(0, 0.1, shape).astype(np.float32)
        try:
            data = gguf.quants.quantize(values, kind)
        except NotImplementedError:
            data = rng.integers(0, 40, gguf.quant_shape_to_byte_shape(shape, kind), np.uint8)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=kind)
