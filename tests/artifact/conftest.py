"""A handmade model and an artifact of it that has every kind of part: scales of all kinds, zero points, tables, rotations."""

from __future__ import annotations

from pathlib import Path

import pytest

import bitwright
from bitwright.artifact import open_artifact
from bitwright.core import Choice, Recipe, Scheme
from bitwright.models.base import LanguageModel
from handmade import make_handmade

SCHEMES = {
    "*.q_proj.weight": "int4-g32",
    "*.k_proj.weight": "int3-g16-affine-sbf16",
    "*.v_proj.weight": "fixed8-tensor",
    "*.o_proj.weight": "int5-channel-affine-sfp32",
    "model.layers.0.mlp.gate_proj.weight": "bf16",
    "model.layers.1.mlp.gate_proj.weight": "nvfp4",
    "model.layers.0.mlp.up_proj.weight": "int2-g64",
    "model.layers.1.mlp.up_proj.weight": "pwl6-tensor",
    "*.down_proj.weight": "int4-g32-srow5",
    "model.embed_tokens.weight": "any3-g16",
}
ROTATED = ("*.v_proj.weight", "*.down_proj.weight")


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return bitwright.load(make_handmade(tmp_path_factory.mktemp("models") / "handmade"))


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    choices = [
        Choice(pattern, Scheme.parse(scheme), fitting="minmax", rotate=pattern in ROTATED) for pattern, scheme in SCHEMES.items()
    ]
    return Recipe(tuple(choices), head=Scheme.parse("int8-channel"))


@pytest.fixture(scope="session")
def artifact(source: LanguageModel, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed: `damaged` makes a copy that is."""
    out = tmp_path_factory.mktemp("artifacts") / "small"
    bitwright.quantize(source, recipe).save(out)
    open_artifact(out)
    return out
