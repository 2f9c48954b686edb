"""What the workers of methods.py share, in peers' interpreters: calibration tokens in, a model of dequantized weights out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

CALIBRATION = "BITWRIGHT_CALIBRATION"  # a .npy file, (windows, tokens)


def calibration() -> Any:
    return np.load(os.environ[CALIBRATION]).astype(np.int64)


def load_tensors(source: str) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return dict(load_file(Path(source) / "model.safetensors"))


def body(names: Iterable[str]) -> list[str]:
    """The matrices that every contender quantizes: those of the blocks."""
    return [name for name in names if name.endswith("_proj.weight")]


def save_model(source: str, target: str, tensors: Mapping[str, Any]) -> None:
    """`source` with these weights in single precision; what a peer added to the model is left out."""
    from safetensors.numpy import save_file

    Path(target).mkdir(parents=True, exist_ok=True)
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(source) / file, target)
    kept = {name: np.ascontiguousarray(tensors[name], np.float32) for name in load_tensors(source)}
    save_file(kept, Path(target) / "model.safetensors")
