"""How methods and schemes are spelled, against the recipes they stand for."""

from __future__ import annotations

import pytest

from bitwright.cli.combinations import combinations
from bitwright.core import Recipe
from bitwright.errors import RecipeError, SchemeError
from bitwright.fitting import CALIBRATED, FITTING
from bitwright.rounding import ROUNDING
from bitwright.transforms import TRANSFORMS

NAMES = [*ROUNDING, *FITTING, *CALIBRATED, *TRANSFORMS, "rotate", "no-rotate", "guidance"]


@pytest.mark.parametrize(
    ("method", "recipe"),
    [
        ("gptq", Recipe.uniform("int4-g64", "gptq")),
        ("hqq", Recipe.uniform("int4-g64", fitting="hqq")),
        ("nearest+entropy", Recipe.uniform("int4-g64", fitting="entropy")),
        ("entropy+nearest", Recipe.uniform("int4-g64", fitting="entropy")),
        ("awq+gptq", Recipe.uniform("int4-g64", "gptq", transforms=["awq"])),
        ("rotate-residual+refine+hessian", Recipe.uniform("int4-g64", "refine", "hessian", transforms=["rotate-residual"])),
        ("equalize + fold", Recipe.uniform("int4-g64", transforms=["equalize", "fold"])),
        ("fold+equalize", Recipe.uniform("int4-g64", transforms=["fold", "equalize"])),
        ("guidance+gptaq", Recipe.uniform("int4-g64", "gptaq", guidance=True)),
        ("gptq+no-rotate", Recipe.uniform("int4-g64", "gptq", rotate=False)),
        ("awq+rotate", Recipe.uniform("int4-g64", transforms=["awq"], rotate=True)),
    ],
)
def test_a_method_is_its_parts(method: str, recipe: Recipe) -> None:
    assert combinations(method, "int4-g64") == {(method.replace(" ", ""), "int4-g64"): recipe}


def test_every_name_is_one_part_and_no_two_kinds_share_one() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for name in NAMES:
        (recipe,) = combinations(name, "int8-channel").values()
        (choice,) = recipe.choices
        asked = (choice.method, choice.fitting, *recipe.transforms, "rotate" if choice.rotate else "no-rotate")
        asked += ("guidance",) if choice.guidance else ()
        assert name in asked


def test_every_method_with_every_scheme_each_recipe_once() -> None:
    found = combinations("gptq,nearest+hqq,hqq,gptq", "INT8-channel,int4-g64,int8-channel")
    assert list(found) == [(method, scheme) for scheme in ("int8-channel", "int4-g64") for method in ("gptq", "nearest+hqq")]


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ("magic", "unknown method 'magic'; choose from nearest, "),
        ("awq+", "unknown method ''"),
        ("", "unknown method ''"),
        ("nearest,gptq+nearest", r"gptq\+nearest is not one method: gptq and nearest exclude each other"),
        ("hqq+mse", "hqq and mse exclude each other"),
        ("rotate+no-rotate", "rotate and no-rotate exclude each other"),
    ],
)
def test_what_is_no_method(methods: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        combinations(methods, "int4-g64")


def test_an_unknown_part_is_told_all_there_is() -> None:
    with pytest.raises(RecipeError) as told:
        combinations("magic", "int4-g64")
    listed = str(told.value).partition("choose from ")[2].partition(";")[0].split(", ")
    assert sorted(listed) == sorted(NAMES)


def test_what_is_no_scheme() -> None:
    with pytest.raises(SchemeError, match="unknown format 'int9'"):
        combinations("nearest", "int9-g64")
