"""Tensors that are done, kept until all are: in memory, or on disk beside the output, where a later run finds them.

A directory holds one .npz file a tensor, written beside and renamed, so that whatever is there is whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.core import Scheme
from bitwright.models.base import Dense, Packed


class Store:
    """Tensors by name. With a directory, memory holds none of them."""

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory
        self._held: dict[str, Packed | Dense] = {}

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def get(self, name: str) -> Packed | Dense | None:
        """None where it is not there, or damaged."""
        if self.directory is None:
            return self._held.get(name)
        try:
            with np.load(self._path(name), allow_pickle=False) as file:
                return _tensor(json.loads(str(file["kind"])), {key: file[key] for key in file.files if key != "kind"})
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None

    def put(self, name: str, tensor: Packed | Dense) -> None:
        if self.directory is None:
            self._held[name] = tensor
            return
        fields = {field.name: getattr(tensor, field.name) for field in dataclasses.fields(tensor)}
        arrays = {key: value for key, value in fields.items() if isinstance(value, np.ndarray)}
        kind = {"class": type(tensor).__name__} | {
            key: str(value) if isinstance(value, Scheme) else value for key, value in fields.items() if key not in arrays
        }
        self.directory.mkdir(parents=True, exist_ok=True)
        part = self._path(name).with_suffix(".part")
        with part.open("wb") as file:
            np.savez(file, **({"kind": np.array(json.dumps(kind))} | arrays))  # type: ignore[arg-type]
        part.rename(self._path(name))

    def clear(self) -> None:
        self._held.clear()
        if self.directory is not None:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _path(self, name: str) -> Path:
        assert self.directory is not None
        return self.directory / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.npz"


def _tensor(kind: dict[str, Any], arrays: dict[str, Any]) -> Packed | Dense:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in kind.items()} | arrays
    if fields.pop("class") == "Packed":
        return Packed(**fields | {"scheme": Scheme.parse(fields["scheme"])})
    return Dense(**fields)
