"""How long each phase of a plan should take on this machine, before it begins: for the bar that shows the time left.

What rounding and writing text take is foretold by calibration/forecast.py, which measures this machine's pace for a few seconds.
The other phases are so many times one forward pass over their tokens, which it foretells as well; the multiples below were
measured with `python benchmarks/plans.py --time` on the machine that its results name. timeline.py corrects what is left by what
earlier phases took.
"""

from __future__ import annotations

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
from bitwright.calibration.forecast import Work, forecast
from bitwright.core import Recipe
from bitwright.models.base import LanguageModel
from bitwright.quantization import quantize

Phases = list[tuple[str, float]]

# Of forward passes over the phase's own tokens, with moments
SENSITIVITY_PASSES = 7.7
MEASURED_PASSES = 3.0  # of a model and its reference by the engine
AGAIN = 0.5  # of that, where what the reference says is known already
RESTORED_PASSES = 2.3  # of one tensor, from the block that it stands in
# Of what rounding the whole model takes, without forward passes
A_CANDIDATE = 0.33
MIXED = 2.5  # a plan, of which some has tables of levels
# Seconds
A_WRITER = 4.0  # a model at 8 bits
A_SCHEME = 1.25  # of the device, with one kind of activations
A_TRIAL = 12.0  # loading, speed, memory


def phases(model: LanguageModel, settings: Settings) -> Phases:
    """(what is said to be done, seconds) in order. Raises what `quantize` raises for settings that cannot be."""
    source = source_of(settings)
    tokens = min(source.windows, PLAN_WINDOWS) * min(source.length, PLAN_LENGTH)
    made = quantize(model, Recipe.uniform(settings.schemes[-1], settings.method, rotate=settings.rotate), source).forecast()
    length = min(HELD_OUT_LENGTH, model.architecture.context_length)
    proof, climbing = PROOF_WINDOWS * length, CLIMBING_WINDOWS * length
    schemes = settings.offer().all_schemes()
    alone = forecast(model, Work({}, {}, (1, tokens), 1, 0, 1))
    pace, token = alone.seconds / tokens, alone.writing_seconds  # of a forward pass, and of a text that is written
    writing = A_WRITER + made.writing_seconds if made.writing_seconds else 0.0
    found: Phases = [("writing calibration text", writing)]
    rounding = max(0.0, made.seconds - pace * source.windows * source.length)
    candidates = A_CANDIDATE * len(schemes) * rounding
    mixed = rounding * MIXED + made.seconds - rounding
    found += [("finding what each tensor's error costs", SENSITIVITY_PASSES * pace * tokens + candidates)]
    if not settings.verify:
        return found
    if settings.held_out is None:
        found += [("writing text to verify on", A_WRITER + token * (proof + climbing))]
    kinds = len({role for (role, _), place in model.roles().items() if len(model.shape(place.name)) == 2})  # noqa: PLR2004
    trial = A_TRIAL + AGAIN * MEASURED_PASSES * pace * (proof + climbing)
    found += [("measuring this device", A_SCHEME * len(schemes) * len(settings.activations))]
    if "int8" in settings.activations:
        found += [("measuring what rounded activations cost", A_WRITER + 3 * MEASURED_PASSES * pace * proof)]
    for step in range(1 + settings.swaps):
        name = "measuring plan 1" if step == 0 else f"measuring swap {step}"
        if step:
            found += [("looking for swaps", RESTORED_PASSES * pace * climbing * (MOST_TENSORS + 2 * kinds))]
        found += [("rounding layer by layer", mixed), (name, trial)]
    return found
