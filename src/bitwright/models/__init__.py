"""Language models from wherever they lie: `load` gives all of them the same face, `base.LanguageModel`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from bitwright.errors import ModelConfigError, ModelNotFoundError

if TYPE_CHECKING:
    from bitwright.models.base import LanguageModel


def load(path: str | Path) -> LanguageModel:
    """A Hugging Face directory, a hub id (org/name), a .gguf file or an artifact's directory.

    Tensors stay on disk until they are asked for. Raises `ModelNotFoundError`, `ModelConfigError`,
    `UnknownFamilyError`, `ManifestError` and the subclasses of `TensorFileError`.
    """
    place = Path(path)
    is_directory = os.path.isdir(place)  # unlike Path.is_dir, no error on a path too long to exist
    if is_directory and (place / "manifest.json").is_file():
        from bitwright.artifact import open_artifact

        return open_artifact(place)
    if os.path.isfile(place):
        return _load_file(place)
    from bitwright.models.huggingface import HuggingFaceModel, download, is_hub_id

    if is_directory:
        return HuggingFaceModel(place)
    if is_hub_id(str(path)) and place.suffix != ".gguf":
        return HuggingFaceModel(download(str(path)))
    raise ModelNotFoundError(f"no model at {path}; give a model's directory, a .gguf file or a hub id such as org/name")


def _load_file(path: Path) -> LanguageModel:
    try:
        with path.open("rb") as file:
            is_gguf = file.read(4) == b"GGUF"
    except OSError as fault:
        raise ModelNotFoundError(f"cannot read {path}: {fault.strerror}; check its permissions") from fault
    if is_gguf or path.suffix == ".gguf":
        from bitwright.models.gguf import GGUFModel

        return GGUFModel(path)
    if path.suffix in (".safetensors", ".json"):
        raise ModelConfigError(f"{path} is one file of a model; give its directory, {path.parent}")
    raise ModelConfigError(
        f"{path} is no model that can be read here; give a Hugging Face directory, a .gguf file or an artifact"
    )
