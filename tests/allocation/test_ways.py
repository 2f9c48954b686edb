"""Ways are spelled as methods are elsewhere, and what a plan cannot judge by a tensor is refused in one line."""

from __future__ import annotations

import pytest

from bitwright.allocation.ways import Way, parse_ways
from bitwright.core import Choice, Recipe, Scheme
from bitwright.errors import RecipeError
from bitwright.fitting import CALIBRATED, FITTING
from bitwright.rounding import ROUNDING


def every_way() -> list[Way]:
    """Of all methods and fittings, turned and not, guided where there is something to weigh."""
    return [
        Way(method, fitting, rotate, guidance)
        for method, row in ROUNDING.items()
        for fitting in ((*FITTING, *CALIBRATED) if row.needs else FITTING)
        for rotate in (True, False)
        for guidance in ((True, False) if row.needs else (False,))
    ]


@pytest.mark.parametrize("way", every_way(), ids=str)
def test_every_way_is_read_as_it_is_spelled(way: Way) -> None:
    assert Way.parse(str(way)) == way
    assert Way.of(way.choice("q", Scheme.parse("int4-g64"))) == way


def test_what_is_not_said_is_nearest_mse_and_as_the_plan_turns() -> None:
    assert Way.parse("hqq") == Way("nearest", "hqq") and str(Way.parse("hqq")) == "hqq"
    assert Way.parse("gptq", rotate=False) == Way("gptq", rotate=False) == Way.parse("gptq+no-rotate")
    assert Way.parse(" gptq + rotate ", rotate=False) == Way("gptq")
    assert parse_ways(["gptq", "hqq", "gptq+rotate"]) == (Way("gptq"), Way("nearest", "hqq"))


def test_a_choice_is_that_of_a_recipe() -> None:
    scheme = Scheme.parse("int4-g64")
    assert Way.parse("gptq+hessian").choice("*", scheme) == Recipe.uniform(scheme, "gptq", "hessian").choices[0]
    assert Way("gptq", rotate=False).choice("q", scheme) == Choice("q", scheme, "gptq")
    assert Way.parse("gptq+guidance").choice("*", scheme) == Recipe.uniform(scheme, "gptq", guidance=True).choices[0]


@pytest.mark.parametrize("method", ROUNDING)
def test_a_way_takes_the_schemes_that_its_method_does(method: str) -> None:
    assert Way(method).takes(Scheme.parse("int4-g64"))
    assert Way(method).takes(Scheme.parse("nf4-g64")) != ROUNDING[method].even_steps


@pytest.mark.parametrize(
    ("spelling", "words"),
    [
        ("awq", ("'awq'", "choose from nearest", "gptq", "hqq", "no-rotate")),
        ("distill", ("'distill'", "choose from")),
        ("", ("''", "choose from")),
        ("gptq+refine", ("gptq and refine exclude each other", "a comma makes two")),
        ("rotate+no-rotate", ("exclude each other",)),
        ("hessian", ("'hessian' needs a method that calibrates", "gptq+hessian")),
        ("hqq+guidance", ("'guidance' needs a method that calibrates", "gptq+guidance")),
        ("gptq,gptaq+guidance", ("gptaq looks at how far", "name it alone", "choose from nearest")),
        ("gptq,gptaq", ("gptaq looks at how far", "name it alone", "choose from nearest")),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(spelling: str, words: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError) as refusal:
        parse_ways(spelling.split(","))
    assert "\n" not in str(refusal.value)
    for word in words:
        assert word in str(refusal.value)
    assert "gptaq" not in str(refusal.value).partition("alone, or choose from ")[2]


def test_a_method_that_no_tensor_tells_from_others_may_stand_alone() -> None:
    assert parse_ways(["gptaq"]) == (Way("gptaq"),)


@pytest.mark.parametrize(
    ("way", "plain"),
    [("gptq+hessian+guidance", "gptq+hessian"), ("guided", "refine"), ("gptaq", "gptaq"), ("nearest", "nearest")],
)
def test_a_way_without_its_guidance(way: str, plain: str) -> None:
    assert Way.parse(way).unguided == Way.parse(plain)
