"""A Hugging Face directory as a `LanguageModel`: config.json and safetensors, one file or shards, memory-mapped.

Tensors keep the names of the text-only model: `model.language_model.layers.0...` of one that also sees images is
`model.layers.0...` here, and its vision half is left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.artifact.safetensors_file import SafetensorsFile
from bitwright.core import Floats
from bitwright.errors import MissingTensorError, ModelConfigError, ModelNotFoundError, UnknownDtypeError
from bitwright.models.architecture import Architecture, TensorSlice
from bitwright.models.base import Dense
from bitwright.models.families import FAMILIES, check_shapes, read_architecture, roles, tensor_shapes, text_config
from bitwright.models.json_file import read_json
from bitwright.models.tokenizer import Tokenizer

CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
DTYPES = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}

# What stands before the text-only name in checkpoints that also see images, by age of the transformers that wrote them.
_PREFIXES = {"model.language_model.": "model.", "language_model.model.": "model.", "language_model.lm_head.": "lm_head."}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILES = ["*.json", "*.safetensors", "*.jinja"]


class HuggingFaceModel:
    """A directory that `save_pretrained` wrote, or a snapshot from the hub.

    Raises `ModelNotFoundError`, `ModelConfigError`, `UnknownFamilyError`, `MissingTensorError`, `ShapeError` and the
    faults of `SafetensorsFile` on opening: whatever opens can be read.
    """

    architecture: Architecture
    path: Path

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._config = text_config(read_config(self.path))
        self.architecture = read_architecture(self._config)
        self._places = _canonical(_locate(self.path))
        if self.architecture.tied_head and self._has_own_head():
            self.architecture = replace(self.architecture, tied_head=False)
            self._config["tie_word_embeddings"] = False
        self._roles = roles(self.architecture, self._places)
        self._shapes = tensor_shapes(self.architecture, self._roles)
        check_shapes(self._shapes, lambda name: self._places[name][0].shape(self._places[name][1]))

    def names(self) -> Sequence[str]:
        return tuple(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        self._place(name)
        return self._shapes[name]

    def stored(self, name: str) -> Dense:
        file, stored_name = self._place(name)
        return Dense(self.scheme_of(name), file.view(stored_name))

    def read(self, name: str) -> Floats:
        return self.stored(name).dequantize()

    def stored_bits(self, name: str) -> int:
        return 8 * self.stored(name).values.nbytes

    def scheme_of(self, name: str) -> str:
        """fp32, fp16 or bf16. Raises `UnknownDtypeError` on any other type."""
        file, stored_name = self._place(name)
        dtype = file.dtype(stored_name)
        if dtype not in DTYPES:
            raise UnknownDtypeError(f"tensor {name} is stored as {dtype}; convert the weights to one of {', '.join(DTYPES)}")
        return DTYPES[dtype]

    def roles(self) -> Mapping[tuple[str, int], TensorSlice]:
        return dict(self._roles)

    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.from_directory(self.path)

    def config(self) -> dict[str, Any]:
        return dict(self._config)

    def fingerprint(self) -> str:
        """A hash over config, and name, size and time of change of every file of tensors."""
        files = sorted({file.path for file, _ in self._places.values()})
        state = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return hashlib.sha256(repr((sorted(self._config.items(), key=str), state)).encode()).hexdigest()[:16]

    def _place(self, name: str) -> tuple[SafetensorsFile, str]:
        if name not in self._shapes:
            raise MissingTensorError(f"no tensor {name} in {self.path}; `bitwright inspect {self.path}` lists them")
        return self._places[name]

    def _has_own_head(self) -> bool:
        """A tied model whose file yet holds a head: the same numbers once more, or in truth untied."""
        tensors = FAMILIES[self.architecture.family].tensors
        if not {tensors["head"], tensors["embedding"]} <= set(self._places):
            return False
        head, embedding = (file.view(name) for file, name in (self._places[tensors["head"]], self._places[tensors["embedding"]]))
        return not _equal(head, embedding)


def read_config(directory: Path) -> dict[str, Any]:
    """config.json. Raises `ModelNotFoundError` where the directory is none, `ModelConfigError` otherwise."""
    if not directory.is_dir():
        raise ModelNotFoundError(f"no directory {directory}; give a model's directory, a .gguf file or a hub id such as org/name")
    return read_json(directory / CONFIG, ModelConfigError)


def is_hub_id(text: str) -> bool:
    """Does this look like org/name?"""
    return _HUB_ID.fullmatch(text) is not None and ".." not in text


def download(hub_id: str) -> Path:
    """The local snapshot of a model on the hub, fetched where it is not there yet. Raises `ModelNotFoundError`."""
    from huggingface_hub import snapshot_download  # takes a while to import

    try:
        return Path(snapshot_download(hub_id, allow_patterns=_HUB_FILES))
    except (OSError, ValueError) as fault:  # all faults of the hub are one or the other
        reason = (str(fault).strip().splitlines() or [type(fault).__name__])[0][:160]
        raise ModelNotFoundError(
            f"no path {hub_id}, and the hub does not give it ({reason}); check name and connection, or pass a local directory"
        ) from fault


def _locate(directory: Path) -> dict[str, tuple[SafetensorsFile, str]]:
    """Tensor name -> its file and its name there."""
    if (directory / INDEX).is_file():
        return _locate_shards(directory)
    if (directory / SINGLE).is_file():
        file = SafetensorsFile(directory / SINGLE)
        return {name: (file, name) for name in file.names()}
    if any(directory.glob("*.bin")) or any(directory.glob("*.pt")) or any(directory.glob("*.pth")):
        raise ModelConfigError(
            f"{directory} has only pickled weights, which are never loaded since they can run code; convert them to safetensors"
        )
    if any(directory.glob("*.gguf")):
        raise ModelConfigError(f"{directory} holds GGUF; give the path of the .gguf file itself")
    raise ModelNotFoundError(f"{directory} has neither {SINGLE} nor {INDEX}; fetch the model again")


def _locate_shards(directory: Path) -> dict[str, tuple[SafetensorsFile, str]]:
    """By the index, which may name nothing but files beside it."""
    index = read_json(directory / INDEX, ModelConfigError).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise ModelConfigError(f"{directory / INDEX} has no 'weight_map'; fetch the model again")
    shards = {shard: _open_shard(directory, shard) for shard in _shard_names(directory, index.values())}
    for name, shard in index.items():
        if name not in shards[shard]:
            raise MissingTensorError(f"{INDEX} says that {shard} holds {name}, but it does not; fetch the model again")
    return {name: (shards[shard], name) for name, shard in index.items()}


def _shard_names(directory: Path, values: Collection[object]) -> list[str]:
    """The distinct file names of an index."""
    for value in values:
        if not isinstance(value, str) or not value.endswith(".safetensors") or Path(value).name != value or "\0" in value:
            raise ModelConfigError(
                f"{directory / INDEX} names {str(value)[:80]!r}, which is no .safetensors file beside it; fetch the model again"
            )
    return sorted({str(value) for value in values})


def _open_shard(directory: Path, shard: str) -> SafetensorsFile:
    if not (directory / shard).is_file():
        raise ModelNotFoundError(f"{directory} lacks {shard}, which {INDEX} names; fetch the model again")
    return SafetensorsFile(directory / shard)


def _canonical(places: Mapping[str, tuple[SafetensorsFile, str]]) -> dict[str, tuple[SafetensorsFile, str]]:
    """The same under the names of the text-only model. Raises `ModelConfigError` where two names become one."""
    renamed: dict[str, tuple[SafetensorsFile, str]] = {}
    for name, place in places.items():
        prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), "")
        canonical = _PREFIXES.get(prefix, "") + name.removeprefix(prefix)
        if canonical in renamed:
            raise ModelConfigError(f"the weights hold {canonical} twice, as {name} and as {renamed[canonical][1]}; remove one")
        renamed[canonical] = place
    return renamed


def _equal(left: npt.NDArray[Any], right: npt.NDArray[Any], rows: int = 4096) -> bool:
    """Bit for bit, a few rows at a time: these may be the largest tensors of the model."""
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    return all(np.array_equal(left[i : i + rows], right[i : i + rows]) for i in range(0, len(left), rows))
