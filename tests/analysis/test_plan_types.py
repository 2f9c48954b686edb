"""The reason that a recipe gives for a choice: what it costs, and what its neighbours in size would."""

from __future__ import annotations

from bitwright.allocation.candidates import Candidate, Unit
from bitwright.analysis.plan_types import reason_of, recipe_of
from bitwright.core import Choice, Recipe, Scheme

SCHEMES = {"int8-channel": (80, 0.001), "int3-g32": (35, 0.2), "int4-g32": (45, 0.04)}  # bits, divergence: not in order of size


def unit(name: str) -> Unit:
    candidates = [Candidate(Choice(name, Scheme.parse(scheme)), *costs) for scheme, costs in SCHEMES.items()]
    return Unit(name, (2, 5), [("q", 0)], candidates)


def test_a_choice_stands_between_the_next_smaller_and_larger() -> None:
    assert reason_of(unit("q"), 2, 1.0) == "KL 0.04; int3-g32 0.2; int8-channel 0.001"
    assert reason_of(unit("q"), 2, 2.5) == "KL 0.1; int3-g32 0.5; int8-channel 0.0025"


def test_the_smallest_and_the_largest_have_one_neighbour() -> None:
    assert reason_of(unit("q"), 1, 1.0) == "KL 0.2; int4-g32 0.04"
    assert reason_of(unit("q"), 0, 1.0) == "KL 0.001; int4-g32 0.04"


def test_a_recipe_keeps_the_reasons_in_its_file() -> None:
    recipe = recipe_of([unit("q"), unit("k")], [1, 0], [1.0, 10.0], ())
    read = Recipe.from_dict(recipe.to_dict())
    assert [(choice.pattern, str(choice.scheme), choice.reason) for choice in read.choices] == [
        ("q", "int3-g32", "KL 0.2; int4-g32 0.04"),
        ("k", "int8-channel", "KL 0.01; int4-g32 0.4"),
    ]
