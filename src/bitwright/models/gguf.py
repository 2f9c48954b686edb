"""A GGUF file as a language model: tensors under their Hugging Face names, in the Hugging Face layout.

Two things are undone on the way (the converters that write GGUF do them):

    llama architecture  rows of q and k are interleaved within each head of d channels, for a RoPE that turns neighbours:
                        GGUF row 2 i + s  =  Hugging Face row i + s d / 2,   i < d / 2, s in {0, 1}
    Gemma               norm weights are stored with their 1 added; config.json's norm_offset adds it again
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.core import Floats
from bitwright.errors import MissingTensorError, ModelConfigError, ShapeError
from bitwright.formats.checks import require_finite
from bitwright.models.architecture import Architecture, TensorSlice
from bitwright.models.base import Dense, Packed, WithMinimum
from bitwright.models.families import FAMILIES, Family, check_shapes, read_architecture, roles, tensor_shapes
from bitwright.models.gguf_config import TensorFacts, family_of_metadata, synthesize_config
from bitwright.models.gguf_file import GGUFFile
from bitwright.models.gguf_tokenizer import read_tokenizer
from bitwright.models.gguf_types import decode
from bitwright.models.tokenizer import Tokenizer

_BLOCK = "blk.{layer}."
ROLE_NAMES = {
    "embedding": "token_embd.weight",
    "head": "output.weight",
    "final_norm": "output_norm.weight",
    "attention_norm": _BLOCK + "attn_norm.weight",
    "q": _BLOCK + "attn_q.weight",
    "k": _BLOCK + "attn_k.weight",
    "v": _BLOCK + "attn_v.weight",
    "o": _BLOCK + "attn_output.weight",
    "q_bias": _BLOCK + "attn_q.bias",
    "k_bias": _BLOCK + "attn_k.bias",
    "v_bias": _BLOCK + "attn_v.bias",
    "o_bias": _BLOCK + "attn_output.bias",
    "q_norm": _BLOCK + "attn_q_norm.weight",
    "k_norm": _BLOCK + "attn_k_norm.weight",
    "post_attention_norm": _BLOCK + "post_attention_norm.weight",
    "mlp_norm": _BLOCK + "ffn_norm.weight",
    "gate": _BLOCK + "ffn_gate.weight",
    "up": _BLOCK + "ffn_up.weight",
    "down": _BLOCK + "ffn_down.weight",
    "post_mlp_norm": _BLOCK + "post_ffw_norm.weight",
}
FUSED_NAMES = {("q", "k", "v"): _BLOCK + "attn_qkv.weight", ("gate", "up"): _BLOCK + "ffn_up.weight"}
# Divisors of RoPE frequencies: they become part of the config. Some converters write them once, some for each layer.
_DIVISORS = ("rope_freqs", "rope_factors_long", "rope_factors_short")
LARGEST_HEAD = 1 << 12  # channels
_INTERLEAVED = {"q": "heads", "k": "kv_heads", "q_bias": "heads", "k_bias": "kv_heads"}


@dataclass(frozen=True)
class _Place:
    """Where a tensor of the Hugging Face layout comes from."""

    source: str  # its name in the file
    role: str


class GGUFModel:
    """A `LanguageModel` over one GGUF file.

    Raises what `GGUFFile` raises, `UnknownFamilyError`, `ModelConfigError`, `MissingTensorError` and `ShapeError`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = GGUFFile(path)
        family = family_of_metadata(self._file.metadata)
        self._config = synthesize_config(self._file.metadata, _tensor_facts(self._file))
        self.architecture: Architecture = read_architecture(self._config)
        self._places = _places(family, self.architecture.layers, self._file.names())
        self._roles = roles(self.architecture, self._places)
        check_shapes(tensor_shapes(self.architecture, self._roles), self.shape)

    def names(self) -> Sequence[str]:
        return list(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._file.shape(self._place(name).source)

    def stored(self, name: str) -> Packed | Dense:
        """Packed for Q4_0, Q5_0 and Q8_0 matrices, Dense (some `WithMinimum`) for all else. Raises `MissingTensorError`."""
        place = self._place(name)
        tensor = decode(self._file.type_name(place.source), self._file.raw(place.source), self._file.shape(place.source))
        if self.architecture.norm_offset and place.role.endswith("norm"):
            return Dense("fp32", require_finite(tensor.dequantize(), name) - np.float32(self.architecture.norm_offset))
        if FAMILIES[self.architecture.family].gguf == "llama" and place.role in _INTERLEAVED:
            heads: int = getattr(self.architecture, _INTERLEAVED[place.role])
            return _reordered(tensor, deinterleaving(heads, self.architecture.head_dim))
        return tensor

    def read(self, name: str) -> Floats:
        return self.stored(name).dequantize()

    def stored_bits(self, name: str) -> int:
        return 8 * self._file.info(self._place(name).source).size

    def scheme_of(self, name: str) -> str:
        """fp32, fp16 or bf16; other types by their GGUF name, such as q4_k."""
        type_name = self._file.type_name(self._place(name).source)
        return {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}.get(type_name, type_name.lower())

    def roles(self) -> Mapping[tuple[str, int], TensorSlice]:
        return self._roles

    def tokenizer(self) -> Tokenizer:
        """From the metadata. Raises `TokenizerError`."""
        return self._tokenizer

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return read_tokenizer(self._file.metadata)

    def config(self) -> dict[str, Any]:
        return dict(self._config)

    def fingerprint(self) -> str:
        """Of names, types, places and the first bytes of every tensor: the same for a copy, another after a change."""
        digest = hashlib.blake2b(digest_size=16)
        for name in self._file.names():
            info = self._file.info(name)
            digest.update(f"{name} {info.type.name} {info.shape} {info.offset}\n".encode())
            digest.update(self._file.raw(name)[0, :4096].tobytes())
        return digest.hexdigest()

    def _place(self, name: str) -> _Place:
        if name not in self._places:
            raise MissingTensorError(f"{self.path.name} has no tensor {name!r}; `bitwright inspect` lists those it has")
        return self._places[name]


def deinterleaving(heads: int, head_dim: int) -> npt.NDArray[np.int64]:
    """(heads * head_dim,) for each row of the Hugging Face layout, the GGUF row it comes from."""
    rows = np.arange(heads * head_dim).reshape(heads, head_dim // 2, 2)
    return rows.swapaxes(1, 2).reshape(-1)


def _reordered(tensor: Packed | Dense, order: npt.NDArray[np.int64]) -> Packed | Dense:
    """The same tensor with its rows in another order."""
    if isinstance(tensor, WithMinimum):
        return tensor.reordered(order)
    if isinstance(tensor, Dense):
        return Dense(tensor.dtype, tensor.values[order])
    scale = tensor.scale.reshape(len(order), -1)[order].reshape(-1)
    return dataclasses.replace(tensor, codes=tensor.codes[order], scale=scale)


def _tensor_facts(file: GGUFFile) -> TensorFacts:
    names = file.names()
    divisors = {}
    for kind in _DIVISORS:
        found = [name for name in names if name == f"{kind}.weight" or name.endswith(f".{kind}.weight")]
        if found:
            divisors[kind] = _numbers(file, found[0])
    vocab_size = file.shape(ROLE_NAMES["embedding"])[0]
    return TensorFacts(vocab_size, ROLE_NAMES["head"] not in names, divisors)


def _numbers(file: GGUFFile, name: str) -> list[float]:
    """A small vector, each number the shortest decimal that rounds to it."""
    shape = file.shape(name)
    if len(shape) != 1 or shape[0] > LARGEST_HEAD // 2:
        raise ShapeError(
            f"{name} has shape {list(shape)}, not one number for each pair of rotary channels; convert the model anew"
        )
    values = decode(file.type_name(name), file.raw(name), shape).dequantize()
    return [float(str(value)) for value in values]


def _places(family: Family, layers: int, stored: Sequence[str]) -> dict[str, _Place]:
    """Hugging Face name -> place, in the order of the layers. Raises `ModelConfigError` for a tensor nobody knows."""
    templates = {name: _Place(ROLE_NAMES[role], role) for role, name in family.tensors.items()}
    templates |= {name: _Place(FUSED_NAMES[members], "+".join(members)) for name, members in (family.fused or {}).items()}
    inside = {name: place for name, place in templates.items() if "{layer}" in name}
    first = {name: place for name, place in templates.items() if place.role == "embedding"}
    found = dict(first)
    for layer in range(layers):
        for name, place in inside.items():
            found[name.format(layer=layer)] = _Place(place.source.format(layer=layer), place.role)
    found |= {name: place for name, place in templates.items() if name not in inside}
    present = set(stored)
    found = {name: place for name, place in found.items() if place.source in present}
    unknown = present - {place.source for place in found.values()}
    for name in sorted(unknown):
        if not name.removesuffix(".weight").endswith(_DIVISORS):
            raise ModelConfigError(f"tensor {name!r} has no place in the {family.name} family; use a plain dense model of it")
    return found
