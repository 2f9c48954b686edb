"""Writes an artifact tensor by tensor: manifest first, so that every size is known before the first byte of work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bitwright.artifact.manifest import MANIFEST_FILE, TENSOR_FILE, Manifest
from bitwright.artifact.safetensors_file import SafetensorsWriter, encode_header, size_of
from bitwright.artifact.staging import staged
from bitwright.errors import ManifestError
from bitwright.models.base import Dense, Packed

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
FILES = (MANIFEST_FILE, TENSOR_FILE, *TOKENIZER_FILES)

Progress = Callable[[str, int, int], None]  # tensor's name, bytes written so far, bytes in all


def write_artifact(
    out: str | Path,
    manifest: Manifest,
    stored: Callable[[str], Packed | Dense],
    save_tokenizer: Callable[[Path], None],
    progress: Progress | None = None,
) -> None:
    """Write the directory `out`. `stored` is asked for each tensor of the manifest once, in order; memory: one tensor.

    An `out` that is an artifact itself is replaced once the new one is complete; whatever goes wrong before leaves `out`
    as it was and nothing beside it. Raises `OutputError`, `ManifestError` and what `stored` raises.
    """
    encoded, parts = manifest.encode(), manifest.parts()
    total = sum(size_of(dtype, shape) for dtype, shape in parts.values())
    with staged(out, bytes_of(manifest), is_artifact) as directory:
        (directory / MANIFEST_FILE).write_bytes(encoded)
        save_tokenizer(directory)
        done = 0
        with SafetensorsWriter(directory / TENSOR_FILE, parts) as writer:
            for name, line in manifest.tensors.items():
                for part, array in line.arrays(name, stored(name)).items():
                    writer.write(part, array)
                    done += array.nbytes
                if progress is not None:
                    progress(name, done, total)


def bytes_of(manifest: Manifest) -> int:
    """Of the manifest's file and the tensors' file, before they are written."""
    parts = manifest.parts()
    tensors = sum(size_of(dtype, shape) for dtype, shape in parts.values())
    return len(manifest.encode()) + len(encode_header(parts, {})) + tensors


def is_artifact(directory: Path) -> bool:
    """Whether this is an artifact and nothing else, so that to replace it destroys nothing that is not ours."""
    try:
        Manifest.load(directory)
    except ManifestError:
        return False
    return all(entry.name in FILES for entry in directory.iterdir())
