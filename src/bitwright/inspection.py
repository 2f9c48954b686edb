"""What a model takes: tensors, schemes, true bits per weight and bytes, everything counted.

    bits per weight = bits of all stored tensors / number of weights

with scales, zero points, padding and unquantized tensors in the first and each tensor once, however many roles it plays.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from bitwright.artifact import ArtifactModel
from bitwright.models.base import LanguageModel


def summary(model: LanguageModel) -> dict[str, Any]:
    """size_bytes, bits_per_weight, weights, family, and tensors, a list of {name, shape, scheme, rotation, weights,
    bits_per_weight, bytes}; `rotation`: columns in a block of the Hadamard rotation, 0 for none

    size_bytes is the size of all tensors; of an artifact, of all files in its directory, tokenizer included.
    """
    tensors = [_row(model, name) for name in model.names()]
    weights = sum(row["weights"] for row in tensors)
    bits = sum(model.stored_bits(name) for name in model.names())
    size = _directory_bytes(model.path) if isinstance(model, ArtifactModel) else math.ceil(bits / 8)
    return {
        "size_bytes": size,
        "bits_per_weight": bits / weights,
        "weights": weights,
        "family": model.architecture.family,
        "tensors": tensors,
    }


def _row(model: LanguageModel, name: str) -> dict[str, Any]:
    shape, bits = model.shape(name), model.stored_bits(name)
    weights = math.prod(shape)
    return {
        "name": name,
        "shape": list(shape),
        "scheme": model.scheme_of(name),
        "rotation": _rotation(model, name),
        "weights": weights,
        "bits_per_weight": bits / weights,
        "bytes": math.ceil(bits / 8),
    }


def _rotation(model: LanguageModel, name: str) -> int:
    """Only artifacts hold rotated tensors."""
    rotation_of = getattr(model, "rotation_of", None)  # only what we quantize is ever rotated
    return rotation_of(name) if rotation_of else 0


def _directory_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
