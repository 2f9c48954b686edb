"""Masks are those of the slow twin, keep the share they should, and reach an artifact with every zero in place."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bitwright
from bitwright.core import Choice, Recipe, Scheme
from bitwright.errors import NonFiniteError, RecipeError
from bitwright.formats import FORMATS, NAMED
from bitwright.models.base import Dense, LanguageModel
from bitwright.quantization.matrix import quantize_matrix
from bitwright.rounding import ROUNDING
from bitwright.sparsity.pruning import Constant, Pattern, Polynomial, mask, mask_reference, strip
from handmade import make_handmade

SPELLINGS = ("0.5", "row:0.3", "block4x4:0.5", "block1x8:0.25", "2:4", "4:8", "1:4", "0", "1")
Q, HEAD, EMBEDDING = "model.layers.0.self_attn.q_proj.weight", "lm_head.weight", "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return bitwright.load(make_handmade(tmp_path_factory.mktemp("models") / "untied"))


def matrix(seed: int, ties: bool = False) -> npt.NDArray[np.float32]:
    weights = np.random.default_rng(seed).standard_normal((16, 64)).astype(np.float32)
    return np.rint(weights) if ties else weights


@pytest.mark.parametrize("spelling", SPELLINGS)
@given(seed=st.integers(0, 2**32), ties=st.booleans())
@settings(deadline=None, max_examples=5)
def test_a_mask_is_its_slow_twin_s(spelling: str, seed: int, ties: bool) -> None:
    weights, pattern = matrix(seed, ties), Pattern.parse(spelling)
    kept = mask(weights, pattern)
    np.testing.assert_array_equal(kept, mask_reference(weights, pattern))
    np.testing.assert_array_equal(mask(weights, pattern, 0.7), mask_reference(weights, pattern, 0.7))


def test_what_is_kept_by_hand() -> None:
    weights = np.array([[1, -4, 3, 2, 0, 0, 0, 5], [9, 8, 7, 6, 5, 1, 1, 1]], np.float32)
    expected = {
        "2:4": [[0, 1, 1, 0, 0, 0, 1, 1], [1, 1, 0, 0, 1, 0, 0, 1]],
        "0.5": [[0, 1, 1, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 0, 0, 0]],
        "row:0.5": [[0, 1, 1, 1, 0, 0, 0, 1], [1, 1, 1, 1, 0, 0, 0, 0]],
        "block2x2:0.5": [[1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0]],
    }
    for spelling, kept in expected.items():
        np.testing.assert_array_equal(mask(weights, Pattern.parse(spelling)), np.array(kept, bool), spelling)


def test_no_other_mask_of_the_pattern_loses_less() -> None:
    weights = matrix(3)[:1, :8]
    kept = mask(weights, Pattern.parse("2:4"))
    pairs = [np.isin(np.arange(4), pair) for pair in itertools.combinations(range(4), 2)]
    masks = [np.concatenate(both)[None, :] for both in itertools.product(pairs, pairs)]
    least = min(float((weights[~other] ** 2).sum()) for other in masks)
    assert float((weights[~kept] ** 2).sum()) == pytest.approx(least)


@pytest.mark.parametrize("of", [3, 7, 10, 49])
def test_n_of_m_is_exact_for_every_n(of: int) -> None:
    weights = np.random.default_rng(of).standard_normal((4, 2 * of)).astype(np.float32)
    for kept in range(1, of + 1):
        counts = mask(weights, Pattern.parse(f"{kept}:{of}")).reshape(-1, of).sum(axis=1)
        assert (counts == kept).all()


@pytest.mark.parametrize("spelling", ["half", "1.5", "-0.5", "4:2", "0:4", "block4:0.5", "block0x4:0.5", "2:4:0.5", "", "nan"])
def test_what_is_no_pattern_is_refused(spelling: str) -> None:
    with pytest.raises(RecipeError, match="write it like|at least"):
        Pattern.parse(spelling)


def test_a_pattern_that_does_not_fit_is_refused() -> None:
    for spelling in ("block5x4:0.5", "block4x5:0.5", "2:7"):
        with pytest.raises(RecipeError, match="do(es)? not divide"):
            mask(matrix(0), Pattern.parse(spelling))
    with pytest.raises(NonFiniteError):
        mask(np.full((2, 4), np.nan, np.float32), Pattern.parse("2:4"))


def test_schedules() -> None:
    cubic = Polynomial(final=0.8, begin=10, end=110, initial=0.2, every=10)
    assert [cubic.share_at(step) for step in (0, 9, 10, 19, 110, 1000)] == pytest.approx([0, 0, 0.2, 0.2, 0.8, 0.8])
    assert cubic.share_at(69) == cubic.share_at(60) == pytest.approx(0.8 - 0.6 * 0.5**3)
    assert Polynomial(final=1.0, end=4, power=1).share_at(1) == 0.25
    shares = [cubic.share_at(step) for step in range(10, 130)]
    assert shares == sorted(shares)
    assert [Constant(0.5, begin=2).share_at(step) for step in (1, 2, 3)] == [0, 0.5, 0.5]
    with pytest.raises(RecipeError):
        Polynomial(final=0.5, end=0)


def test_pruning_bit_by_bit_drops_what_pruning_at_once_does() -> None:
    weights, schedule, pattern = matrix(4), Polynomial(final=0.75, end=8), Pattern.parse("0.75")
    left = weights
    for step in range(9):
        left = strip(left, mask(left, pattern, schedule.share_at(step)))
    np.testing.assert_array_equal(left, strip(weights, mask(weights, pattern)))


ZERO_KEEPING = [
    *(f"{name}-g32" for name, format in FORMATS.items() if format.scaled),
    *(f"{name}-g32-affine" for name, format in FORMATS.items() if format.affine),
    *("int4-g32-srow5", "int8-tensor", "kmeans4-tensor", "any3-channel", "fp16", *NAMED),
]


@pytest.mark.parametrize("spelling", ZERO_KEEPING)
@pytest.mark.parametrize("method", [name for name, method in ROUNDING.items() if not method.needs])
def test_zeros_stay_zero_in_every_format(spelling: str, method: str) -> None:
    weights = matrix(5) + np.float32(0.3)
    choice = Choice("*", Scheme.parse(spelling), method, prune="2:4")
    stored = quantize_matrix("x", Dense("fp32", weights), choice).dequantize()
    kept = mask(weights, Pattern.parse("2:4"))
    assert (stored[~kept] == 0).all() and (stored[kept] != 0).any()
    expected = quantize_matrix("x", Dense("fp32", strip(weights, kept)), replace(choice, prune=""))
    np.testing.assert_array_equal(stored, expected.dequantize())


def test_a_recipe_prunes_the_layers(model: LanguageModel, tmp_path: Path) -> None:
    for scheme in ("int4-g32", "int8-channel"):
        saved = bitwright.quantize(model, Recipe.uniform(scheme, prune="2:4")).save(tmp_path / "out")
        zeros = (saved.read(Q) == 0).reshape(-1, 4).sum(axis=1)
        assert (zeros >= 2).all()
        for name in (HEAD, EMBEDDING):  # spared
            assert (saved.read(name) == 0).mean() < 0.2
    named = Recipe((Choice(EMBEDDING, Scheme.parse("int8-channel"), prune="row:0.5"),))
    assert ((bitwright.quantize(model, named).read(EMBEDDING) == 0).sum(axis=1) >= 32).all()


def test_what_would_fill_the_zeros_is_refused_before_any_work(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(model), "stored", lambda self, name: pytest.fail("a weight was read"))
    recipes = {
        "rotation would fill what prune '2:4' leaves zero": Recipe.uniform("int4-g64", prune="2:4", rotate=True),
        "method 'gptq' would fill .* choose from nearest": Recipe.uniform("int4-g64", "gptq", prune="2:4"),
        "cannot read pruning 'most'": Recipe.uniform("int4-g64", prune="most"),
        r"model\.[a-z_.0-9]+weight: 5 does not divide a row of 64": Recipe.uniform("int4-g64", prune="2:5"),
    }
    for message, recipe in recipes.items():
        with pytest.raises(RecipeError, match=message):
            bitwright.quantize(model, recipe)


def test_pruned_recipes_do_not_rotate_and_read_back() -> None:
    recipe = Recipe.uniform("int4-g64", prune="block4x4:0.5")
    assert not recipe.choices[0].rotate and Recipe.from_dict(recipe.to_dict()) == recipe
