"""Of many candidates those that are best somewhere: what every tensor has a better one for is left out.

A candidate is beaten by one of at most as many bits and at most its loss, which the engine holds no dearer (codes, then look-up,
then a byte a weight) and whose inputs are not turned where its own are not. By bits and loss alone slow schemes would drive out
fast ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bitwright.allocation.candidates import Candidate, Unit
from bitwright.allocation.ways import Way
from bitwright.core import Scheme
from bitwright.engine.layout import BYTES, CODES, LOOK_UP, held_as

DEARER = {CODES: 0, LOOK_UP: 1, BYTES: 2}  # and beyond them fp32

Costs = tuple[float, float, int, bool]


def undominated(units: Sequence[Unit]) -> list[Unit]:
    """The same units without the candidates whose scheme and way are beaten on every one of them."""
    best = {_kind(unit.candidates[index]) for unit in units for index in _unbeaten(unit)}
    return [replace(unit, candidates=[each for each in unit.candidates if _kind(each) in best]) for unit in units]


def _kind(candidate: Candidate) -> tuple[Scheme, Way]:
    return candidate.choice.scheme, Way.of(candidate.choice)


def _unbeaten(unit: Unit) -> list[int]:
    """Indices; of equal candidates the first."""
    costs = [_costs(each, unit.shape[1]) for each in unit.candidates]
    found: list[int] = []
    for index in sorted(range(len(costs)), key=lambda index: costs[index]):  # whatever beats one stands before it
        if not any(all(a <= b for a, b in zip(costs[other], costs[index], strict=True)) for other in found):
            found.append(index)
    return found


def _costs(candidate: Candidate, columns: int) -> Costs:
    choice = candidate.choice
    held = DEARER.get(held_as(choice.scheme, columns), len(DEARER))
    return candidate.bits, candidate.divergence, held, choice.rotate
