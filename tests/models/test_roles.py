"""Which tensor plays which role: found, missing, fused, tied, superfluous."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bitwright.errors import MissingTensorError, ModelConfigError, ShapeError
from bitwright.models.architecture import Architecture, TensorSlice
from bitwright.models.families import FAMILIES, check_shapes, read_architecture, roles, tensor_shapes

PUBLISHED: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("published_configs.json").read_text("utf-8"))


def _needed(architecture: Architecture) -> list[str]:
    """All tensor names of a model of this architecture, without optional biases."""
    family = FAMILIES[architecture.family]
    templates = [name for role, name in family.tensors.items() if not role.endswith("_bias") or role in family.biases] + list(
        family.fused
    )
    if architecture.tied_head:
        templates.remove(family.tensors["head"])
    layers, experts = range(architecture.layers), range(max(1, architecture.experts))
    names = [template.format(layer=layer, expert=expert) for template in templates for layer in layers for expert in experts]
    return list(dict.fromkeys(names))


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_needed_tensor_is_found_and_missed(name: str) -> None:
    architecture = read_architecture(PUBLISHED[name])
    names = _needed(architecture)
    played = roles(architecture, names)
    assert {place.name for place in played.values()} == set(names)
    assert list(tensor_shapes(architecture, played))[0] == "model.embed_tokens.weight"
    assert (played["head", -1] == played["embedding", -1]) == architecture.tied_head
    middle = [name for name in names if ".experts." in name and ".experts.5." not in name]  # like those of expert 5
    for missing in [name for name in names if ("layers" not in name or "layers.1." in name) and name not in middle]:
        with pytest.raises(MissingTensorError, match=f"tensor {missing} is missing"):
            roles(architecture, [name for name in names if name != missing])


def test_fused_tensors_are_rows_of_one() -> None:
    architecture = read_architecture(PUBLISHED["Phi-3 with longrope"])
    played = roles(architecture, _needed(architecture))
    fused = "model.layers.1.self_attn.qkv_proj.weight"
    assert [played[role, 1] for role in "qkv"] == [
        TensorSlice(fused, 0, 128),
        TensorSlice(fused, 128, 192),
        TensorSlice(fused, 192, 256),
    ]
    shapes = tensor_shapes(architecture, played)
    assert shapes[fused] == (256, 128) and shapes["model.layers.0.mlp.gate_up_proj.weight"] == (512, 128)


def test_optional_biases_are_in_all_layers_or_in_none() -> None:
    architecture = read_architecture(PUBLISHED["SmolLM2-135M"])
    names = _needed(architecture)
    bias = "model.layers.{}.self_attn.o_proj.bias"
    everywhere = [bias.format(layer) for layer in range(architecture.layers)]
    assert roles(architecture, names + everywhere)["o_bias", 7] == TensorSlice(bias.format(7))
    with pytest.raises(MissingTensorError, match="layers.29"):
        roles(architecture, names + everywhere[:-1])
    with pytest.raises(ModelConfigError, match="has no role"):
        roles(architecture, names + everywhere[1:])


@pytest.mark.parametrize(
    "extra", ["model.layers.0.mlp.gate_proj.bias", "model.layers.30.mlp.up_proj.weight", "model.layers.0.lora_A"]
)
def test_tensors_without_a_role_are_refused(extra: str) -> None:
    architecture = read_architecture(PUBLISHED["SmolLM2-135M"])
    with pytest.raises(ModelConfigError, match=f"{extra} has no role"):
        roles(architecture, [*_needed(architecture), extra])


def test_rotary_buffers_and_tensors_beside_the_model_are_ignored() -> None:
    architecture = read_architecture(PUBLISHED["SmolLM2-135M"])
    names = _needed(architecture)
    extras = ["model.layers.0.self_attn.rotary_emb.inv_freq", "vision_tower.layers.0.weight", "lm_head.weight"]
    assert roles(architecture, names + extras) == roles(architecture, names)


def test_wrong_shapes_are_refused() -> None:
    architecture = read_architecture(PUBLISHED["Qwen2.5-0.5B"])
    shapes = tensor_shapes(architecture, roles(architecture, _needed(architecture)))
    check_shapes(shapes, shapes.__getitem__)
    wrong = "model.layers.3.self_attn.k_proj.weight"
    with pytest.raises(ShapeError, match=r"layers.3.*\[128, 895\].*\[128, 896\]"):
        check_shapes(shapes, lambda name: (128, 895) if name == wrong else shapes[name])
