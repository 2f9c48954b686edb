"""The reason that a recipe gives for a choice: what it costs, and what its neighbours in size would."""

from __future__ import annotations

from bitwright.allocation.candidates import Candidate, Unit
from bitwright.allocation.ways import Way
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


def in_ways(*losses: tuple[str, str, float]) -> Unit:
    """Candidates of (scheme, way, divergence)."""
    choices = [Way.parse(way).choice("q", Scheme.parse(scheme)) for scheme, way, _ in losses]
    bits = [choice.scheme.stored_bits((2, 64)) for choice in choices]
    return Unit(
        "q", (2, 64), [("q", 0)], [Candidate(*each, loss) for *each, (_, _, loss) in zip(choices, bits, losses, strict=True)]
    )


def test_ways_are_named_where_they_differ() -> None:
    ways = in_ways(
        ("int3-g32", "gptq", 0.2),
        ("int3-g32", "hqq", 0.3),
        ("int4-g32", "gptq", 0.04),
        ("int4-g32", "hqq", 0.06),
        ("int4-g32", "gptq+no-rotate", 0.05),
        ("int8-channel", "gptq", 0.002),
        ("int8-channel", "hqq", 0.001),
    )
    assert reason_of(ways, 2, 1.0) == "KL 0.04; by gptq+no-rotate 0.05; int3-g32 0.2; int8-channel by hqq 0.001"
    assert reason_of(ways, 3, 1.0) == "KL 0.06; by gptq 0.04; int3-g32 by gptq 0.2; int8-channel 0.001"


def test_one_way_is_not_named_and_full_precision_has_none() -> None:
    one = in_ways(("int4-g32", "gptq", 0.04), ("fp16", "gptq+no-rotate", 0.0))
    assert reason_of(one, 0, 1.0) == "KL 0.04; fp16 0" and reason_of(one, 1, 1.0) == "KL 0; int4-g32 0.04"
    several = in_ways(("int4-g32", "gptq", 0.04), ("int4-g32", "hqq", 0.06), ("fp16", "gptq+no-rotate", 0.0))
    assert reason_of(several, 0, 1.0) == "KL 0.04; by hqq 0.06; fp16 0"
    assert reason_of(several, 2, 1.0) == "KL 0; int4-g32 by gptq 0.04"
