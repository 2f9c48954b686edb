"""How long each phase of a plan should take on this machine, before it begins: for the bar that shows the time left.

What rounding and writing text take is foretold by calibration/forecast.py, which measures this machine's pace for a few seconds.
The other phases are so many times one forward pass over their tokens, which it foretells as well; the multiples below were
measured with `python benchmarks/plans.py --time` on the machine that its results name. timeline.py corrects what is left by what
earlier phases took.
"""

from __future__ import annotations

from dataclasses import replace

from bitwright.allocation.candidates import Offer
from bitwright.allocation.ways import Way
from bitwright.analysis.climbing import MOST_TENSORS
from bitwright.analysis.plan_types import Settings
from bitwright.analysis.planning import (
    CLIMBING_WINDOWS,
    HELD_OUT_LENGTH,
    PLAN_LENGTH,
    PLAN_WINDOWS,
    PROOF_WINDOWS,
    source_of,
)
from bitwright.calibration import paces
from bitwright.calibration.forecast import Forecast, Work, forecast
from bitwright.calibration.text import Source
from bitwright.core import Recipe
from bitwright.models.base import LanguageModel
from bitwright.quantization import quantize

Phases = list[tuple[str, float]]

GUIDED, UNGUIDED = "guided", "refine"  # what guided needs was found with the sensitivities; with it, candidates are refined
NEEDS = ("", "gram", "cross", GUIDED)  # of methods, in the order of what it takes to know them

# Of forward passes over the phase's own tokens, with moments
SENSITIVITY_PASSES = 7.7
MEASURED_PASSES = 3.0  # of a model and its reference by the engine
AGAIN = 0.5  # of that, where what the reference says is known already
RESTORED_PASSES = 2.3  # of one tensor, from the block that it stands in
# Of what rounding the whole model takes, without forward passes
A_CANDIDATE = 0.33
MIXED = 2.5  # a plan, of which some has tables of levels
# Of all schemes, those that are best for some tensor and so are measured: `plan --schemes all` says how many
LEFT = 0.8
# Seconds
A_WRITER = 4.0  # a model at 8 bits
A_SCHEME = 1.25  # of the device, with one kind of activations
A_MIX = 10.0  # a stand-in of the plan, and those beside it
A_TRIAL = 8.0  # loading, speed, memory


def phases(model: LanguageModel, settings: Settings) -> Phases:
    """(what is said to be done, seconds) in order. Raises what `quantize` raises for settings that cannot be."""
    source, offer = source_of(settings), settings.offer(model)
    tokens = min(source.windows, PLAN_WINDOWS) * min(source.length, PLAN_LENGTH)
    way = max(offer.ways, key=lambda way: NEEDS.index(way.needs))  # a plan that has some tensors so takes what it needs
    made = _made(model, offer, way, source)
    sampled = _made(model, offer, replace(way, method=UNGUIDED), source) if way.needs == GUIDED else made
    length = min(HELD_OUT_LENGTH, model.architecture.context_length)
    proof, climbing = PROOF_WINDOWS * length, CLIMBING_WINDOWS * length
    schemes = offer.all_schemes()
    alone = forecast(model, Work({}, {}, (1, tokens), 1, 0, 1))
    pace, token = alone.seconds / tokens, alone.writing_seconds  # of a forward pass, and of a text that is written
    writing = A_WRITER + made.writing_seconds if made.writing_seconds else 0.0
    found: Phases = [("writing calibration text", writing)]
    walked = source.windows * source.length if way.needs else 0
    rounding = max(0.0, sampled.seconds - pace * walked)
    candidates = A_CANDIDATE * len(schemes) * rounding * _in_ways(model, offer, way)
    mixed = rounding * MIXED + made.seconds - rounding
    found += [("finding what each tensor's error costs", SENSITIVITY_PASSES * pace * tokens + candidates)]
    if not settings.verify:
        return found
    if settings.held_out is None:
        found += [("writing text to verify on", A_WRITER + token * (proof + climbing))]
    kinds = len({role for (role, _), place in model.roles().items() if len(model.shape(place.name)) == 2})  # noqa: PLR2004
    trial = A_TRIAL + AGAIN * MEASURED_PASSES * pace * (proof + climbing)
    turned = len({each.rotate for each in offer.ways})
    left = LEFT * len(schemes) if settings.all_schemes else len(schemes)
    found += [("measuring this device", A_SCHEME * left * turned * len(settings.activations))]
    if "int8" in settings.activations:
        found += [("measuring what rounded activations cost", A_WRITER + 3 * MEASURED_PASSES * pace * proof)]
    for step in range(1 + settings.swaps):
        name = "measuring plan 1" if step == 0 else f"measuring swap {step}"
        if step:
            found += [("looking for swaps", RESTORED_PASSES * pace * climbing * (MOST_TENSORS + 2 * kinds))]
        found += [("timing the mix of schemes", A_MIX), ("rounding layer by layer", mixed), (name, trial)]
    return found


def _made(model: LanguageModel, offer: Offer, way: Way, source: Source) -> Forecast:
    """Of the model rounded so throughout, in the last scheme that the way can round to."""
    schemes = [scheme for scheme in offer.schemes if way.takes(scheme)] or offer.schemes
    recipe = Recipe.uniform(schemes[-1], way.method, way.fitting, rotate=way.rotate)
    return quantize(model, recipe, source).forecast()


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
