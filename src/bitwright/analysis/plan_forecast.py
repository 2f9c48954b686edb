"""How long each phase of a plan should take on this machine, before it begins: for the bar that shows the time left.

What rounding and writing text take is foretold by calibration/forecast.py, which measures this machine's pace for a few seconds.
The other phases are so many times one forward pass over their tokens, which it foretells as well; the multiples below were
measured with `python benchmarks/plans.py --time` on the machine that its results name. What the cache holds takes nothing
(plan_known.py). timeline.py corrects what is left by what earlier phases took.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from bitwright.allocation.budget import Budget
from bitwright.allocation.candidates import Offer
from bitwright.allocation.ways import Way
from bitwright.analysis.climbing import MOST_TENSORS
from bitwright.analysis.plan_devices import is_timed_here
from bitwright.analysis.plan_known import Known
from bitwright.analysis.plan_texts import (
    CLIMBING_WINDOWS,
    HELD_OUT_LENGTH,
    PLAN_LENGTH,
    PLAN_WINDOWS,
    PROOF_WINDOWS,
    source_of,
)
from bitwright.analysis.plan_types import Settings
from bitwright.calibration import paces
from bitwright.calibration.forecast import Forecast, Work, forecast
from bitwright.calibration.paces import Walking
from bitwright.calibration.text import Source
from bitwright.core import Recipe
from bitwright.models.base import LanguageModel
from bitwright.quantization import quantize

Phases = list[tuple[str, float]]

NEEDS = ("", "gram", "cross", "guided", "guided cross")  # of methods, in the order of what it takes to know them

# Of forward passes over the phase's own tokens, with moments
SENSITIVITY_PASSES = 9.0
REFERENCE_PASSES, RUN_PASSES = 2.6, 1.2  # of the engine, in fp32 and as plans run
RESTORED_PASSES = 2.6  # of one tensor, from the block that it stands in
# Of what rounding the whole model takes, without forward passes
A_CANDIDATE = 0.22
MIXED = 3.7  # a plan, of which some has tables of levels
# Of all schemes, those that are best for some tensor and so are measured: `plan --schemes all` says how many
LEFT = 0.8
# Seconds
A_WRITER = 4.0  # a model at 8 bits
A_SCHEME = 2.8  # of the device, with one kind of activations
A_MIX = 10.0  # a stand-in of the plan, and those beside it
A_TRIAL = 24.0  # storing, loading, speed, memory
CHOICE = "choosing schemes", 3.0  # by the program; nobody is told when that begins, and the phase after it ends it


def phases(model: LanguageModel, settings: Settings, budget: Budget) -> Phases:
    """(what is said to be done, seconds) in order. Raises what `quantize` raises for settings that cannot be, and `TextError` for
    the user's text where it is too short.
    """
    settings = settings.weighing(budget)
    known, pace = Known.of(model, settings, budget), _Pace.of(model, settings)
    writing = A_WRITER + pace.writing if pace.writing else 0.0
    found: Phases = [("writing calibration text", writing)]
    found += [("finding what each tensor's error costs", pace.sensing if known.units is None else 0.0)]
    if settings.verify and settings.held_out is None:
        found += [("writing text to verify on", A_WRITER + pace.token * known.unwritten if known.unwritten else 0.0)]
    if is_timed_here(settings, budget):
        left = LEFT if settings.all_schemes and known.units is None else 1.0
        found += [("measuring this device", A_SCHEME * left * known.unmeasured)]
    return found + (_proving(model, settings, budget, known, pace) if settings.verify else [CHOICE])


@dataclass(frozen=True)
class _Pace:
    """Seconds: `forward` of one token through the model, with moments; `token` of one that is written; `writing` of the
    calibration text that is not there yet; `sensing` of finding sensitivities; `rounding` of a plan's matrices.
    """

    forward: float
    token: float
    writing: float
    sensing: float
    rounding: float

    @classmethod
    def of(cls, model: LanguageModel, settings: Settings) -> Self:
        source, offer, walking = source_of(settings), settings.offer(model), Walking.of(model)
        tokens = min(source.windows, PLAN_WINDOWS) * min(source.length, PLAN_LENGTH)
        way = max(offer.ways, key=lambda way: NEEDS.index(way.needs))  # a plan that has some tensors so takes what it needs
        made = _made(model, offer, way, source, walking)
        sampled = made if way.unguided == way else _made(model, offer, way.unguided, source, walking)  # weighed while sensing
        alone = forecast(model, Work({}, {}, (1, tokens), 1, 0, 1), walking)
        forward = alone.seconds / tokens
        rounding = max(0.0, sampled.seconds - forward * (source.windows * source.length if way.needs else 0))
        candidates = A_CANDIDATE * len(offer.all_schemes()) * rounding * _in_ways(model, offer, way)
        mixed = rounding * MIXED + made.seconds - rounding
        return cls(forward, alone.writing_seconds, made.writing_seconds, SENSITIVITY_PASSES * alone.seconds + candidates, mixed)


def _proving(model: LanguageModel, settings: Settings, budget: Budget, known: Known, pace: _Pace) -> Phases:
    """Phases of a plan that is made and measured."""
    length = min(HELD_OUT_LENGTH, model.architecture.context_length)
    proof, climbing = PROOF_WINDOWS * length, CLIMBING_WINDOWS * length
    kinds = len({role for (role, _), place in model.roles().items() if len(model.shape(place.name)) == 2})  # noqa: PLR2004
    found: Phases = []
    reference = 0.0 if known.before else REFERENCE_PASSES * pace.forward * proof
    if "ram" in {budget.wanted, *budget.limits()}:
        found += [("measuring what narrower caches cost", A_WRITER + reference + 3 * RUN_PASSES * pace.forward * proof)]
        reference = 0.0
    if "int8" in settings.activations:
        runs = (RUN_PASSES + REFERENCE_PASSES) * pace.forward * proof
        found += [("measuring what rounded activations cost", 2 * A_WRITER + reference + runs)]
    trial = A_TRIAL + RUN_PASSES * pace.forward * (proof + climbing)
    for step in range(1 + settings.swaps):
        name, measuring = f"measuring swap {step}", trial
        if step == 0:
            name, measuring = "measuring plan 1", trial + (not known.proof) * REFERENCE_PASSES * pace.forward * (proof + climbing)
        else:
            found += [("looking for swaps", RESTORED_PASSES * pace.forward * climbing * (MOST_TENSORS + 2 * kinds))]
        found += [CHOICE, ("timing the mix of schemes", A_MIX), ("rounding layer by layer", pace.rounding), (name, measuring)]
    return found


def _made(model: LanguageModel, offer: Offer, way: Way, source: Source, walking: Walking) -> Forecast:
    """Of the model rounded so throughout, in the last scheme that the way can round to."""
    schemes = [scheme for scheme in offer.schemes if way.takes(scheme)] or offer.schemes
    recipe = Recipe.uniform(schemes[-1], way.method, way.fitting, rotate=way.rotate, guidance=way.guidance)
    return quantize(model, recipe, source).forecast(walking)


def _in_ways(model: LanguageModel, offer: Offer, of: Way) -> float:
    """What rounding in all ways takes, over what it takes in one of them. Fittings are taken to be alike, as paces.py does."""
    if len(offer.ways) == 1:
        return 1.0
    seconds = {}
    for method in dict.fromkeys(way.method for way in offer.ways):
        pace = paces.Rounding.of(method)
        shapes = [place for name in model.names() if len(place := model.shape(name)) == 2]  # noqa: PLR2004
        seconds[method] = sum(pace.seconds(rows, columns) for rows, columns in shapes)
    return sum(seconds[way.method] for way in offer.ways) / seconds[of.method]
