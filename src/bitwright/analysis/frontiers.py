"""Size against loss of what else could be chosen: the best mixes of all candidates, and one scheme throughout.

    foretold loss of a choice = constant + sum over tensors of factor * what curvature foretells of its rounding

For a plan the constant is the loss of rounded activations, and factors are those that it learnt from what it measured. For an
analysed recipe the constant is 0 and the one factor is the recipe's measured loss over the sum of its tensors' estimates, so that
the curve and the measured point beside it are of one scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.allocation.candidates import Offer, Unit
from bitwright.allocation.sensitivity import sensitivities
from bitwright.allocation.solver import choose, totals
from bitwright.analysis.attribution import Attribution
from bitwright.analysis.plan_types import Plan
from bitwright.core import Scheme
from bitwright.errors import BudgetError
from bitwright.models.base import LanguageModel
from bitwright.quantization import QuantizedModel

Point = dict[str, Any]
Fixed = Mapping[str, float]  # by quantity, "bytes" and "divergence"

STEPS = 12  # mixes, from the smallest size to the largest
SCHEMES = ("int2-g32", "int3-g64", "int4-g64", "int5-g64", "int6-g64", "int8-channel")  # beside those of an analysed recipe


def of_plan(plan: Plan) -> list[Point]:
    """The plan as measured, or foretold where nothing was, among what its candidates allow."""
    constant = plan.foretold["bytes"] - sum(candidate.bits / 8 for _, candidate in plan.candidates())
    best = plan.foretold | plan.measured
    others = foretold(plan.units, plan.factors(), {"bytes": constant, "divergence": plan.noise})
    return [*others, chosen_point("this plan", best["bytes"], best["divergence"], bool(plan.measured))]


def of_recipe(
    model: LanguageModel,
    quantized: QuantizedModel,
    found: Attribution,
    whole: Mapping[str, Any],
    windows: npt.NDArray[np.int32],
    progress: Callable[[int, int], None] | None = None,
) -> list[Point]:
    """The recipe as measured among others, all rounded to nearest with columns turned; none where it loses nothing.

    `whole` has `size_bytes` and `kl_mean`, in nats a token; the others are foretold on `windows` (windows, tokens). `progress` is
    told (done, in all).
    """
    estimated = sum(share.estimated for share in found.shares)
    if estimated <= 0 or whole["kl_mean"] <= 0:
        return []
    offer = offer_beside(quantized, [share.tensor for share in found.shares])
    units = [unit for unit in sensitivities(model, windows, offer, progress) if unit.candidates]
    matrices = dict.fromkeys(unit.matrix for unit in units)
    constant = whole["size_bytes"] - sum(quantized.stored_bits(name) for name in matrices) / 8
    factors = [whole["kl_mean"] / estimated] * len(units)
    others = foretold(units, factors, {"bytes": constant, "divergence": 0.0})
    return [*others, chosen_point("this recipe", whole["size_bytes"], whole["kl_mean"], True)]


def offer_beside(quantized: QuantizedModel, names: Iterable[str]) -> Offer:
    """SCHEMES, and those of the recipe, in which the tensors of these names are stored."""
    named = sorted({str(line.scheme) for name in names for line in quantized.lines(name)})
    return Offer(tuple(scheme for scheme in map(Scheme.parse, dict.fromkeys((*SCHEMES, *named))) if scheme.scaled))


def foretold(units: Sequence[Unit], factors: Sequence[float], fixed: Fixed) -> list[Point]:
    """Points of a report's frontier: STEPS mixes, then each scheme that all units have, in each unit's best way.

    `factors`: one a unit.
    """
    costs = {
        "bytes": [np.array([candidate.bits / 8 for candidate in unit.candidates]) for unit in units],
        "divergence": [
            factor * np.array([candidate.divergence for candidate in unit.candidates])
            for factor, unit in zip(factors, units, strict=True)
        ],
    }
    low, high = (fixed["bytes"] + sum(float(end(column)) for column in costs["bytes"]) for end in (np.min, np.max))
    points: list[Point] = []
    for size in np.geomspace(low * 1.002, high, STEPS):
        try:
            chosen = choose(costs, fixed, "divergence", {"bytes": float(size)})
        except BudgetError:
            continue
        points.append(_point("mixed", totals(costs, fixed, chosen)))
    by_scheme = [_best_of_each_scheme(unit) for unit in units]
    for scheme in dict.fromkeys(scheme for each in by_scheme for scheme in each):
        if all(scheme in each for each in by_scheme):
            chosen = [each[scheme] for each in by_scheme]
            points.append(_point(scheme, totals(costs, fixed, chosen)) | {"uniform": True})
    return points


def _best_of_each_scheme(unit: Unit) -> dict[str, int]:
    """Scheme -> the index of the candidate whose way loses least with it."""
    best: dict[str, int] = {}
    for index, candidate in enumerate(unit.candidates):
        before = best.setdefault(str(candidate.choice.scheme), index)
        if candidate.divergence < unit.candidates[before].divergence:
            best[str(candidate.choice.scheme)] = index
    return best


def chosen_point(label: str, size: float, loss: float, measured: bool) -> Point:
    """What the report is of."""
    return {"label": label, "size_bytes": int(size), "kl": float(loss), "measured": measured, "chosen": True}


def _point(label: str, sums: Mapping[str, float]) -> Point:
    return {"label": label, "size_bytes": int(sums["bytes"]), "kl": sums["divergence"], "measured": False}
