"""Opens an artifact: the manifest is checked, then the tensor file against it, then the shapes against the architecture.

Nothing is read but headers; tensors are views of the mapped file.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.artifact.lines import OfLines
from bitwright.artifact.manifest import TENSOR_FILE, Manifest, StoredTensor, check_params
from bitwright.artifact.safetensors_file import SafetensorsFile
from bitwright.artifact.writer import TOKENIZER_FILES, Progress, write_artifact
from bitwright.errors import HeaderError, ManifestError, MissingTensorError, ModelNotFoundError, ShapeError
from bitwright.models.architecture import Architecture, TensorSlice
from bitwright.models.base import Dense, Packed
from bitwright.models.families import check_shapes, read_architecture, roles, tensor_shapes
from bitwright.models.row_blocks import Stacked, whole_names
from bitwright.runtime import RuntimeSetting, read_settings

if TYPE_CHECKING:
    from bitwright.models.tokenizer import Tokenizer


def open_artifact(path: str | Path) -> ArtifactModel:
    """Open the artifact in directory `path`.

    Raises `ModelNotFoundError`, `ManifestError`, and for the tensor file `TruncatedFileError`, `HeaderError`, `OffsetError`,
    `UnknownDtypeError`, `MissingTensorError` or `ShapeError`; `ModelConfigError` and `UnknownFamilyError` for its config.
    """
    directory = Path(path)
    if not directory.is_dir():
        raise ModelNotFoundError(f"no artifact directory {directory}; check the path")
    manifest = Manifest.load(directory)
    tensors = SafetensorsFile(directory / TENSOR_FILE)
    _check_parts(manifest, tensors)
    return ArtifactModel(directory, manifest, tensors)


class ArtifactModel(OfLines):
    """A `LanguageModel` that lies in an artifact."""

    def __init__(self, path: Path, manifest: Manifest, tensors: SafetensorsFile) -> None:
        self.path = path
        self.manifest = manifest
        self._tensors = tensors
        self.architecture: Architecture = read_architecture(manifest.config)
        self._blocks = manifest.blocks()
        self._roles = roles(self.architecture, self.names())
        check_shapes(tensor_shapes(self.architecture, self._roles), self.shape)

    def names(self) -> Sequence[str]:
        return tuple(whole_names(self.manifest.tensors))

    def shape(self, name: str) -> tuple[int, ...]:
        first, *rest = (line.shape for line in self.lines(name))
        return (first[0] + sum(shape[0] for shape in rest), *first[1:])

    def stored(self, name: str) -> Packed | Dense:
        """Views of the mapped file. Raises `MissingTensorError`, `NonFiniteError` for a scale, `ManifestError`."""
        if name in self._blocks:
            return Stacked([self.stored(block) for block in self._blocks[name]])
        line = self._line(name)
        if not line.scheme.scaled:
            return Dense(line.scheme.format, self._tensors.view(name))
        parts = {part.removeprefix(f"{name}."): self._tensors.view(part) for part in line.parts(name)}
        packed = Packed(line.scheme, (line.shape[0], line.shape[1]), rotation=line.rotation, **parts)
        check_params(name, packed)
        return packed

    def roles(self) -> Mapping[tuple[str, int], TensorSlice]:
        return self._roles

    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from bitwright.models.tokenizer import Tokenizer

        return Tokenizer.from_directory(self.path)

    @property
    def runtime(self) -> tuple[RuntimeSetting, ...]:
        """Settings that the engine follows, from the recipe. Raises `RecipeError`."""
        return read_settings((self.manifest.recipe or {}).get("runtime", []))

    def config(self) -> dict[str, Any]:
        return dict(self.manifest.config)

    def fingerprint(self) -> str:
        """Of the manifest and of the tensor file's size and time of writing: cheap, and new whenever the artifact is."""
        import hashlib  # here, because it brings OpenSSL, which running a model does not need

        status = self._tensors.path.stat()
        text = self.manifest.encode() + f"{status.st_size} {status.st_mtime_ns}".encode("ascii")
        return hashlib.sha256(text).hexdigest()[:16]

    def save(self, out: str | Path, progress: Progress | None = None) -> ArtifactModel:
        """Write the same artifact again, byte for byte, every scale checked on the way."""
        write_artifact(out, self.manifest, self.stored, self._copy_tokenizer, progress)
        return open_artifact(out)

    def _copy_tokenizer(self, directory: Path) -> None:
        for file in TOKENIZER_FILES:
            if (self.path / file).is_file():
                shutil.copyfile(self.path / file, directory / file)

    def lines(self, name: str) -> list[StoredTensor]:
        """How the blocks of a matrix are stored, or the whole where it has none."""
        return [self._line(block) for block in self._blocks.get(name, [name])]

    def _line(self, name: str) -> StoredTensor:
        if name not in self.manifest.tensors:
            raise MissingTensorError(f"{self.path} has no tensor {name!r}; `bitwright inspect` lists those it has")
        return self.manifest.tensors[name]


def _check_parts(manifest: Manifest, tensors: SafetensorsFile) -> None:
    """The tensor file holds what the manifest says: no part more, none less, in that order, each of its dtype and shape."""
    parts, cure = manifest.parts(), "quantize the model again"
    for part, (dtype, shape) in parts.items():
        if part not in tensors:
            raise MissingTensorError(f"{tensors.path} lacks {part!r}, which the manifest names; {cure}")
        if tensors.dtype(part) != dtype:
            raise ManifestError(f"{tensors.path}: {part!r} is {tensors.dtype(part)}, the manifest asks for {dtype}; {cure}")
        if tensors.shape(part) != shape:
            found = list(tensors.shape(part))
            raise ShapeError(f"{tensors.path}: {part!r} has shape {found}, the manifest asks for {list(shape)}; {cure}")
    extra = [part for part in tensors.names() if part not in parts]
    if extra:
        raise ManifestError(f"{tensors.path} holds {extra[0][:200]!r}, which the manifest does not name; {cure}")
    if tuple(tensors.names()) != tuple(parts) or not tensors.in_order:
        raise HeaderError(f"{tensors.path} has its tensors in another order than the manifest; {cure}")
