"""Every format runs: as integers where engine/layout.py holds it so, decoded elsewhere, with the logits of the weights held."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitwright
from bitwright.core import Recipe
from bitwright.engine import Engine
from bitwright.engine.layout import FLOATS, held_as
from bitwright.models.base import Dense, LanguageModel, Packed
from engine.held import held_weights
from handmade import make_handmade

TOKENS = list(range(5, 40))
AS_INTEGERS = (
    *("int8-channel", "int4-g32", "int3-g32-affine", "fixed4-tensor", "int4-g32-srow5", "int3-g32-srow5", "int2-g32-srow5"),
    *("kmeans4-g64", "kmeans3-g32", "kmeans2-tensor", "neural4-g32", "pwl4-g64", "pot4-g32", "pot3-channel", "apot4-g64"),
    *("mxfp4", "fp4e2m1-g32", "fp4e2m1-channel", "fp4e2m1-g32-se4m3", "sneural4-g64", "sneural3-g32"),
    *("nf4-g64", "nf3-channel", "nf2-tensor", "any4-g64", "any3-g32", "any2-channel", "local3-g32", "local4-channel"),
    *("apot5-g64", "mxfp6", "int4-g16-srow5"),
)
DECODED = ("int4-g16", "nvfp4", "nf4-g16", "any4-g16", "pwl8-g64", "fp8e4m3-channel", "fp6e3m2-g32")


class Held:
    """A quantized model as the numbers in fp32 that the engine holds."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def stored(self, name: str) -> Packed | Dense:
        stored = self._model.stored(name)
        return Dense("fp32", held_weights(stored) if isinstance(stored, Packed) else stored.dequantize())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return bitwright.load(make_handmade(tmp_path_factory.mktemp("models") / "untied"))


def logits(model: Any, activations: str, tokens: Sequence[int] = TOKENS) -> np.ndarray[Any, Any]:
    return Engine.load(model, activations=activations, kv_cache="fp32").prefill(tokens)


@pytest.mark.parametrize("rotate", [True, False])
@pytest.mark.parametrize("spelling", [*AS_INTEGERS, *DECODED])
def test_logits_are_those_of_the_weights_held(model: LanguageModel, tmp_path: Path, spelling: str, rotate: bool) -> None:
    recipe = Recipe.uniform(spelling, fitting="minmax", head=spelling, rotate=rotate)
    saved = bitwright.quantize(model, recipe).save(tmp_path / "out")
    packed = saved.stored("model.layers.0.self_attn.q_proj.weight")
    assert isinstance(packed, Packed) and (held_as(packed.scheme, packed.shape[1]) == FLOATS) == (spelling in DECODED)
    expected = logits(Held(saved), "fp32")
    assert np.abs(logits(saved, "fp32") - expected).max() < 5e-5 * np.abs(expected).max()
    assert np.abs(logits(saved, "int8") - expected).max() < 0.05 * np.abs(expected).max()
