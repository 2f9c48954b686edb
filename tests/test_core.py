"""Recipes read back as they were written, choose as they say, and refuse what they cannot mean."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.core import Choice, QParams, QTensor, Recipe, Scheme
from bitwright.errors import BitwrightError, RecipeError, SchemeError
from bitwright.fitting import FITTING
from bitwright.rounding import ROUNDING
from laws.strategies import schemes

choices = st.builds(
    Choice,
    pattern=st.text(min_size=1, max_size=20),
    scheme=schemes,
    method=st.sampled_from(list(ROUNDING)),
    fitting=st.sampled_from(list(FITTING)),
    reason=st.text(max_size=20),
    rotate=st.booleans(),
    guidance=st.booleans(),
    prune=st.sampled_from(["", "2:4", "row:0.5"]),
)
recipes = st.builds(Recipe, choices=st.lists(choices, min_size=1, max_size=4).map(tuple), head=st.none() | schemes)


@given(recipe=recipes)
def test_a_recipe_reads_back(recipe: Recipe) -> None:
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_a_recipe_reads_back_from_its_file(tmp_path: Path) -> None:
    recipe = Recipe(
        (Choice("*v_proj*", Scheme.parse("int8-channel"), reason="hurts most"), Choice("*", Scheme.parse("int4-g64")))
    )
    recipe.save(tmp_path / "recipe.json")
    assert Recipe.load(tmp_path / "recipe.json") == recipe


def test_toml_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(
        'head = "int8-channel"\n[[choices]]\npattern = "*"\nscheme = "int4-g64"\nfitting = "minmax"\nrotate = true\n', "utf-8"
    )
    assert Recipe.load(path) == Recipe((Choice("*", Scheme("int4", 64), fitting="minmax", rotate=True),), Scheme("int8"))


def test_the_first_choice_that_matches_holds() -> None:
    recipe = Recipe(
        (Choice("*.v_proj.*", Scheme("int8")), Choice("model.layers.?.*", Scheme("int4", 64)), Choice("*", Scheme("int3", 64)))
    )
    found = {
        name: recipe.choice_for(name)
        for name in (
            "model.layers.0.self_attn.v_proj.weight",
            "model.layers.1.mlp.up_proj.weight",
            "model.layers.11.mlp.up_proj.weight",
        )
    }
    assert [str(choice.scheme) for choice in found.values() if choice] == ["int8-channel", "int4-g64", "int3-g64"]
    assert Recipe((Choice("model.*", Scheme("int8")),)).choice_for("lm_head.weight") is None


@pytest.mark.parametrize(
    ("scheme", "head", "expected"),
    [
        ("int4-g64", None, "int8-channel"),
        ("int8-g32", None, "int8-g32"),
        ("int4-g64", "fp16", "fp16"),
        ("int4-g64", "int4-g64", "int4-g64"),
    ],
)
def test_uniform_keeps_the_head_at_eight_bits_unless_told(scheme: str, head: str | None, expected: str) -> None:
    recipe = Recipe.uniform(scheme, head=head)
    chosen, other = recipe.choice_for("lm_head.weight", is_head=True), recipe.choice_for("model.norm.weight")
    assert chosen is not None and str(chosen.scheme) == expected
    assert other is not None and str(other.scheme) == scheme


def test_uniform_guides_if_told_the_head_as_well() -> None:
    for guidance in (True, False):
        recipe = Recipe.uniform("int4-g64", "gptq", guidance=guidance)
        chosen = [recipe.choice_for("model.layers.0.mlp.up_proj.weight"), recipe.choice_for("lm_head.weight", is_head=True)]
        assert [choice.guidance for choice in chosen if choice] == [guidance, guidance]
        assert ("guidance" in recipe.to_dict()["choices"][0]) == guidance  # as files had it before there was guidance


def test_uniform_rotates_unless_told() -> None:
    for rotate in (True, False):
        recipe = Recipe.uniform("int4-g64", rotate=rotate)
        chosen = [recipe.choice_for("model.layers.0.mlp.up_proj.weight"), recipe.choice_for("lm_head.weight", is_head=True)]
        assert [choice.rotate for choice in chosen if choice] == [rotate, rotate]
    assert Recipe.uniform("int4-g64").choices[0].rotate


def test_a_choice_that_names_the_head_beats_the_default() -> None:
    recipe = Recipe((Choice("lm_head.*", Scheme("int6")), Choice("*", Scheme("int4", 64))), Scheme("int8"))
    chosen = recipe.choice_for("lm_head.weight", is_head=True)
    assert chosen is not None and str(chosen.scheme) == "int6-channel"


@pytest.mark.parametrize(
    ("data", "cure"),
    [
        ([], "non-empty list 'choices'"),
        ({}, "non-empty list 'choices'"),
        ({"choices": []}, "non-empty list 'choices'"),
        ({"choices": [{"pattern": "*"}]}, "pattern, scheme"),
        ({"choices": [{"pattern": "*", "scheme": "int4-g64", "bits": 4}]}, "pattern, scheme"),
        ({"choices": [{"pattern": "*", "scheme": "int4-g64", "method": 3}]}, "strings"),
        ({"choices": [{"pattern": "*", "scheme": "int4-g64", "rotate": "yes"}]}, "rotate is true or false"),
        ({"choices": [{"pattern": "*", "scheme": "int4-g64", "rotate": 1}]}, "rotate is true or false"),
        ({"choices": [{"pattern": "*", "scheme": "int4-g64", "guidance": "yes"}]}, "rotate is true or false, so is guidance"),
        ({"choices": [{"pattern": "*", "scheme": "int4-g64", "reason": True}]}, "strings"),
        ({"choices": [{"pattern": "*", "scheme": "int4-g64"}], "head": 8}, "'head' is a scheme"),
    ],
)
def test_what_is_no_recipe_is_refused(data: object, cure: str) -> None:
    with pytest.raises(RecipeError, match=cure):
        Recipe.from_dict(data)  # type: ignore[arg-type]


def test_an_unknown_scheme_in_a_recipe_is_a_scheme_error() -> None:
    with pytest.raises(SchemeError, match="choose from"):
        Recipe.from_dict({"choices": [{"pattern": "*", "scheme": "int9-g64"}]})


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"choices": 1}', b"[" * 100])
def test_a_file_that_is_no_recipe_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_bytes(content)
    with pytest.raises(RecipeError) as fault:
        Recipe.load(tmp_path / "recipe.json")
    assert "\n" not in str(fault.value)
    assert isinstance(fault.value, BitwrightError)


def test_a_missing_recipe_is_refused() -> None:
    with pytest.raises(RecipeError, match="cannot read recipe nowhere.json"):
        Recipe.load("nowhere.json")


def test_dequantize_is_scale_times_level_minus_zero_point() -> None:
    codes = np.array([[0, 3, 1, 2], [2, 2, 0, 3]], np.uint8)  # int2: levels are codes - 2
    params = QParams(np.array([1, 10, 100, -1], np.float32), np.array([-2, 0, 1, 0], np.float32))
    tensor = QTensor(codes, params, Scheme("int2", 2, affine=True))
    assert tensor.dequantize().tolist() == [[0, 3, -10, 0], [-100, -100, 2, -1]]


def test_a_recipe_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text("[" * 200_000, "utf-8")
    with pytest.raises(RecipeError, match="cannot read recipe"):
        Recipe.load(path)
