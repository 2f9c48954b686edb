"""Transforms in recipes: what is saved is the quantized form of the transformed model, and what cannot be is refused early."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", exc_type=ImportError)

import bitwright
import tiny
from bitwright.calibration import paces
from bitwright.calibration.forward import observe
from bitwright.calibration.text import Source
from bitwright.core import SCALING, Choice, Recipe, Scheme
from bitwright.engine import Engine
from bitwright.engine.reference import forward, forward_hidden
from bitwright.errors import RecipeError
from bitwright.models import load
from bitwright.models.base import LanguageModel
from bitwright.transforms import TRANSFORMS

pytestmark = pytest.mark.usefixtures("text_cache")

SOURCE = Source("self", windows=6, length=32)
EMBEDDING, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.layers.1.input_layernorm.weight"


@pytest.fixture
def model(tiny_directory: Callable[[str], Path]) -> LanguageModel:
    return load(tiny_directory("smollm2"))


@pytest.mark.parametrize("names", [("fold",), ("rotate-residual", "rotate-heads"), ("smoothquant",), ("fold", "awq", "awq-clip")])
def test_what_is_saved_computes_the_same_in_eight_bits(names: tuple[str, ...], model: LanguageModel, tmp_path: Path) -> None:
    recipe = Recipe.uniform("int8-g32", transforms=names)
    saved = bitwright.quantize(model, recipe, SOURCE).save(tmp_path / "out")
    ids = tiny.tokens(40)
    expected, logits = forward(model, ids), Engine.load(saved, activations="fp32", kv_cache="fp32").logits(ids)
    assert np.abs(logits - expected).max() < 0.05 * np.abs(expected).max()
    np.testing.assert_allclose(logits, forward(saved, ids), atol=2e-4)
    assert saved.architecture.tied_head == (HEAD not in saved.names()) == ("rotate-residual" not in names)
    assert saved.manifest.recipe is not None and saved.manifest.recipe["transforms"] == list(names)
    assert Recipe.from_dict(saved.manifest.recipe) == recipe
    assert saved.manifest.source["fingerprint"] == model.fingerprint()
    assert ("calibration_marks" in saved.manifest.source) == any(TRANSFORMS[name].observes for name in names)
    again = bitwright.quantize(model, recipe, SOURCE)
    assert all(np.array_equal(again.read(name), saved.read(name)) for name in saved.names())


def test_methods_that_calibrate_see_the_transformed_model(model: LanguageModel, tmp_path: Path) -> None:
    recipe = Recipe.uniform("int4-g32", method="gptq", transforms=["awq"])
    quantized = bitwright.quantize(model, recipe, SOURCE)
    saved = quantized.save(tmp_path / "out")
    plain = bitwright.quantize(model, Recipe.uniform("int4-g32", method="gptq", rotate=False), SOURCE)
    assert quantized.fingerprint() != plain.fingerprint()
    assert not np.array_equal(saved.read(NORM), model.read(NORM))
    ids = tiny.tokens(40)
    assert np.abs(forward(saved, ids) - forward(model, ids)).max() < 0.6 * np.abs(forward(model, ids)).max()


def test_transforms_that_scale_turn_rotation_off() -> None:
    assert frozenset(name for name, row in TRANSFORMS.items() if row.scales) == SCALING
    for name in TRANSFORMS:
        assert Recipe.uniform("int4-g32", transforms=[name]).choices[0].rotate == (name not in SCALING)
    assert Recipe.uniform("int4-g32").to_dict().keys() == {"head", "choices"}


REFUSED = {
    "unknown": (Recipe.uniform("int4-g32", transforms=["magic"]), "unknown transform 'magic'; choose from fold"),
    "twice": (Recipe.uniform("int4-g32", transforms=["fold", "fold"]), "fold is asked for twice"),
    "rotated": (Recipe.uniform("int4-g32", rotate=True, transforms=["awq"]), "awq scales columns, which rotate mixes again"),
    "biases": (Recipe.uniform("int4-g32", transforms=["bias-correction"]), "no layer of this model has a bias"),
    "method": (Recipe.uniform("int4-g32", "gptq", transforms=["bias-correction"]), "bias-correction is for rounding to nearest"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_any_work(case: str, model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, message = REFUSED[case]
    monkeypatch.setattr(type(model), "stored", lambda self, name: pytest.fail("a weight was read"))
    with pytest.raises(RecipeError, match=message):
        bitwright.quantize(model, recipe, SOURCE)


def test_recipes_say_transforms_as_a_list() -> None:
    recipe = Recipe((Choice("*", Scheme.parse("int4-g32")),), transforms=("fold", "awq"))
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    for wrong in ("fold", ["fold", 3], {"fold": True}):
        with pytest.raises(RecipeError, match="'transforms' is a list of names"):
            Recipe.from_dict(recipe.to_dict() | {"transforms": wrong})


def test_corrected_biases_bring_mean_outputs_back(tiny_directory: Callable[[str], Path]) -> None:
    model = load(tiny_directory("qwen2"))
    plain, corrected = (
        bitwright.quantize(model, Recipe.uniform("int2-g32", rotate=False, transforms=names), SOURCE)
        for names in ((), ("bias-correction",))
    )
    mean = next(seen.mean for seen in observe(model, corrected.text.windows) if seen.layer == 1 and "v" in seen.roles)
    weight, bias = "model.layers.1.self_attn.v_proj.weight", "model.layers.1.self_attn.v_proj.bias"
    expected = model.read(weight) @ mean + model.read(bias)
    np.testing.assert_allclose(corrected.read(weight) @ mean + corrected.read(bias), expected, atol=1e-4)
    assert np.abs(plain.read(weight) @ mean + plain.read(bias) - expected).max() > 0.01


@pytest.mark.parametrize("case", ["llama-bias", "gemma3"])
def test_observed_inputs_are_those_of_the_reference(case: str, tiny_directory: Callable[[str], Path]) -> None:
    model = load(tiny_directory(case))
    windows = np.array([tiny.tokens(48)[:24], tiny.tokens(48)[24:]], np.int32)
    seen = list(observe(model, windows))
    assert len(seen) == 4 * model.architecture.layers + 1 and seen[-1].roles == ("head",)
    x = np.concatenate([forward_hidden(model, window) for window in windows])
    tolerance = 0.02 * np.abs(x).max()  # products may be of bfloat16
    np.testing.assert_allclose(seen[-1].mean, x.mean(axis=0), atol=tolerance)
    np.testing.assert_allclose(seen[-1].size, np.abs(x).mean(axis=0), atol=tolerance)
    np.testing.assert_allclose(seen[-1].largest, np.abs(x).max(axis=0), atol=2 * tolerance)
    np.testing.assert_allclose(seen[-1].gram, x.T @ x / len(x), atol=tolerance * np.abs(x).max())


def test_forecasts_count_what_transforms_observe_and_try(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paces, "_seconds", lambda work: 1e-3)  # all that is timed takes as long, however busy this machine is
    seconds = {
        names: bitwright.quantize(model, Recipe.uniform("int4-g32", transforms=names), SOURCE).forecast().seconds
        for names in ((), ("fold",), ("smoothquant",))
    }
    assert 0 < max(seconds[()], seconds["fold",]) < seconds["smoothquant",]
