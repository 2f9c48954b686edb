"""All schemes are those that the engine multiplies as integers or by look-up; what is worse everywhere is left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", exc_type=ImportError)

from bitwright.allocation.candidates import Candidate, Unit
from bitwright.allocation.engine_schemes import GROUPS, decoded_schemes, engine_schemes
from bitwright.allocation.undominated import undominated
from bitwright.core import Choice, Scheme
from bitwright.engine.layout import BYTES, CODES, FLOATS, LOOK_UP, held_as
from bitwright.formats import FORMATS


def test_each_is_held_as_integers_and_each_format_that_can_be_is_there() -> None:
    schemes = engine_schemes({128, 384})
    assert len(schemes) == len(set(schemes)) > len(FORMATS)
    assert {held_as(scheme, columns) for scheme in schemes for columns in (128, 384)} == {CODES, LOOK_UP, BYTES}
    left_out = {name for name, format in FORMATS.items() if format.scaled} - {scheme.format for scheme in schemes}
    assert {held_as(Scheme(name, group, scale=FORMATS[name].scales[0]), 128) for name in left_out for group in (0, 32)} == {
        FLOATS
    }
    assert {scheme.group for scheme in schemes} == {0, *GROUPS}


def test_groups_divide_all_matrices() -> None:
    assert {scheme.group for scheme in engine_schemes({64, 576})} == {0, 32, 64}
    assert {scheme.group for scheme in engine_schemes({40})} == {0}


def test_schemes_that_are_decoded_are_told() -> None:
    schemes = [Scheme.parse(name) for name in ("int4-g64", "nvfp4", "fp16", "int4-g48", "fp8e4m3-g64")]
    assert [str(scheme) for scheme in decoded_schemes(schemes, {192})] == ["nvfp4", "int4-g48", "fp8e4m3-g64"]
    assert [str(scheme) for scheme in decoded_schemes(schemes, {64})] == ["nvfp4", "fp8e4m3-g64"]  # which g48 does not divide
    assert decoded_schemes(engine_schemes({192}), {192}) == []


def unit(name: str, **losses: float) -> Unit:
    """Candidates by scheme in spelling, `_` for `-`; `no_` before one that is not turned."""
    candidates = []
    for spelling, loss in losses.items():
        scheme, turned = Scheme.parse(spelling.removeprefix("no_").replace("_", "-")), not spelling.startswith("no_")
        candidates.append(Candidate(Choice(name, scheme, rotate=turned), scheme.stored_bits((64, 64)), loss))
    return Unit(name, (64, 64), [("q", 0)], candidates)


def kept(*units: Unit) -> list[list[str]]:
    left = undominated(units)
    assert [(each.name, each.roles) for each in left] == [(each.name, each.roles) for each in units]
    return [[str(each.choice.scheme) + ("" if each.choice.rotate else " unturned") for each in one.candidates] for one in left]


def test_what_is_larger_and_loses_more_on_every_tensor_is_left_out() -> None:
    losses = {"int3_g64": 0.3, "int4_g64": 0.1, "int4_g32": 0.11}
    assert kept(unit("q", **losses), unit("k", **losses)) == [["int3-g64", "int4-g64"]] * 2


def test_what_is_best_on_one_tensor_stays_on_all() -> None:
    worse, better = {"int4_g64": 0.1, "int4_g32": 0.11}, {"int4_g64": 0.1, "int4_g32": 0.09}
    assert kept(unit("q", **worse), unit("k", **better)) == [["int4-g64", "int4-g32"]] * 2


def test_of_equals_the_first_stays() -> None:
    first = unit("q", int4_g64=0.1)
    other = replace(first.candidates[0], choice=Choice("q", Scheme.parse("int4-g64"), "refine", rotate=True))
    left = undominated([replace(first, candidates=[*first.candidates, other])])
    assert left == [first]


def test_what_runs_faster_is_beaten_by_nothing_slower() -> None:
    assert kept(unit("q", int4_g64=0.2, nf4_g64=0.1)) == [["int4-g64", "nf4-g64"]]
    assert kept(unit("q", fp6e2m3_g64=0.01, int6_g64=0.02)) == [["fp6e2m3-g64", "int6-g64"]]
    assert kept(unit("q", nf4_g64=0.2, int4_g64=0.1)) == [["int4-g64"]]
    assert kept(unit("q", int4_g64=0.1, no_int4_g64=0.2)) == [["int4-g64", "int4-g64 unturned"]]
    assert kept(unit("q", int4_g64=0.2, no_int4_g64=0.1)) == [["int4-g64 unturned"]]


def test_against_every_pair() -> None:
    """The definition itself, on random losses of all schemes."""
    schemes, random = engine_schemes({64}), np.random.default_rng(0)
    units = []
    for name in "abc":
        losses = random.uniform(0, 1, len(schemes))
        choices = [Choice(name, scheme, rotate=bool(random.integers(2))) for scheme in schemes]
        bits = [scheme.stored_bits((64, 64)) for scheme in schemes]
        units.append(Unit(name, (64, 64), [("q", 0)], list(map(Candidate, choices, bits, map(float, losses)))))
    held = {CODES: 0, LOOK_UP: 1, BYTES: 2}

    def beaten(mine: Candidate, beside: list[Candidate]) -> bool:
        def costs(each: Candidate) -> np.ndarray:
            choice = each.choice
            return np.array([each.bits, each.divergence, held[held_as(choice.scheme, 64)], choice.rotate], np.float64)

        return any(other is not mine and (costs(other) <= costs(mine)).all() for other in beside)

    survivors = {
        (each.choice.scheme, each.choice.rotate) for one in units for each in one.candidates if not beaten(each, one.candidates)
    }
    for before, after in zip(units, undominated(units), strict=True):
        expected = [each for each in before.candidates if (each.choice.scheme, each.choice.rotate) in survivors]
        assert after.candidates == expected and len(expected) < len(before.candidates)
