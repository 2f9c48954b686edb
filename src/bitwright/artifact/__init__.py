"""The artifact: one directory that holds a quantized model. docs/artifact.md is its one page of rules."""

from __future__ import annotations

from bitwright.artifact.manifest import Manifest, StoredTensor
from bitwright.artifact.reader import ArtifactModel, open_artifact
from bitwright.artifact.safetensors_file import SafetensorsFile, SafetensorsWriter
from bitwright.artifact.writer import is_artifact, write_artifact

__all__ = [
    "ArtifactModel",
    "Manifest",
    "SafetensorsFile",
    "SafetensorsWriter",
    "StoredTensor",
    "is_artifact",
    "open_artifact",
    "write_artifact",
]
