"""What a plan's page shows beside the plan itself: its tensors on their grids, and the step up that the costliest could take.

None of it is measured on the made plan, which is gone by then. Weights are a sample of rows, rounded to nearest in the scheme
that the plan gives them: its method moves codes, hardly the grid. Inputs are those of the unquantized model on one window of the
text that comes along, on the grid of the plan's activations (seen_inputs.py). A step up is the next larger candidate, and its
loss is foretold as the plan's is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.allocation.candidates import SAMPLE_OF_BLOCK, Candidate, Unit
from bitwright.analysis.demonstration import demo_text
from bitwright.analysis.metrics import weight_histogram
from bitwright.analysis.plan_types import Plan
from bitwright.analysis.report.document import WORST
from bitwright.analysis.scored_text import windows_of
from bitwright.analysis.seen_inputs import BINS, WEIGHT_BINS, Counts, Grid, counts_on_the_grid, input_grid, on_the_grid
from bitwright.calibration.decoder import product_dtype
from bitwright.calibration.forward import Site, forward
from bitwright.calibration.sequential import rows_of
from bitwright.errors import TokenizerError
from bitwright.models.base import Dense, LanguageModel, Packed
from bitwright.quantization.matrix import quantize_matrix, rotation_of

WINDOW = 256  # tokens of the text
SHOWN = 320  # tensors whose histograms are drawn, the costliest: they take 3 MB of a page, and most models have fewer

Tokens = npt.NDArray[np.int32]


def costliest(plan: Plan, count: int) -> list[tuple[Unit, Candidate, float]]:
    """Units with what was chosen for each and its foretold loss in nats a token, the largest loss first."""
    rows = [(unit, candidate, loss) for (unit, candidate), loss in zip(plan.candidates(), plan.losses(), strict=True)]
    return sorted(rows, key=lambda row: -row[2])[:count]


def steps_up(plan: Plan) -> list[dict[str, Any]]:
    """For the costliest tensors the smallest candidate that is larger and loses less, as a report's fixes; none was tried."""
    factors = {unit.name: factor for unit, factor in zip(plan.units, plan.factors(), strict=True)}
    before, rows = plan.foretold["divergence"], []
    for unit, candidate, loss in costliest(plan, WORST):
        larger = [one for one in unit.candidates if one.bits > candidate.bits and one.divergence < candidate.divergence]
        if larger:
            better = min(larger, key=lambda one: (one.bits, one.divergence))
            rows.append(
                {
                    "tensor": unit.name,
                    "from_scheme": plan.label(unit, candidate),
                    "to_scheme": plan.label(unit, better),
                    "kl_before": before,
                    "kl_after": before - loss + factors[unit.name] * better.divergence,
                    "extra_bytes": (better.bits - candidate.bits) // 8,
                    "measured": False,
                }
            )
    return rows


def window_of(model: LanguageModel) -> Tokens | None:
    """The first tokens of the text that comes along; None where the model brings no tokenizer."""
    try:
        context = min(WINDOW, model.architecture.context_length)
        return windows_of(model.tokenizer(), demo_text(), context, context)[0]
    except TokenizerError:
        return None


def histograms(model: LanguageModel, plan: Plan, window: Tokens | None) -> list[dict[str, Any]]:
    """Of the costliest tensors, as a report's document has them. `window` (tokens,) is what inputs are seen on."""
    shown = costliest(plan, SHOWN)
    seen = {} if window is None else _inputs(model, shown, window)
    rows = []
    for unit, candidate, _ in shown:
        row: dict[str, Any] = {"name": unit.name, "weights": _weights(model, unit, candidate)}
        if unit.name in seen:
            row["activations"] = counts_on_the_grid(seen[unit.name], plan.activations)
        rows.append(row)
    return [row for row in rows if row["weights"] or "activations" in row]


def _weights(model: LanguageModel, unit: Unit, candidate: Candidate) -> dict[str, Any] | None:
    """Evenly spaced rows on the grid of the scheme; None where it has none."""
    stored, (begin, end) = model.stored(unit.matrix), unit.rows
    rows = np.unique(np.linspace(begin, end - 1, min(SAMPLE_OF_BLOCK, end - begin)).astype(int))
    sample = np.concatenate([stored.rows(row, row + 1).dequantize() for row in rows])
    rounded = quantize_matrix(unit.name, Dense("fp32", sample), replace(candidate.choice, method="nearest"))
    if not isinstance(rounded, Packed):
        return None
    return weight_histogram(sample, rounded, WEIGHT_BINS).to_dict()


def _inputs(model: LanguageModel, shown: Sequence[tuple[Unit, Candidate, float]], window: Tokens) -> Mapping[str, Counts]:
    """Unit -> (BINS,) how many of its inputs lie where between the engine's outermost codes."""
    counts = {unit.name: np.zeros(BINS, np.int64) for unit, _, _ in shown if not unit.looked_up}
    readers: dict[tuple[str, int], list[tuple[str, Grid]]] = {}
    for unit, candidate, _ in shown:
        for role, layer in unit.roles if unit.name in counts else ():
            grid = input_grid(rotation_of(candidate.choice, unit.shape), role)
            readers.setdefault((role, layer), []).append((unit.name, grid))

    def change(site: Site, x: Any) -> Any:
        grids = {name: grid for role in site.roles for name, grid in readers.get((role, site.layer), ())}
        seen = {grid: on_the_grid(rows_of(x), grid) for grid in set(grids.values())}  # of all that read it
        for name, grid in grids.items():
            counts[name] += seen[grid]
        return x

    for _ in forward(model, window[None], change, product_dtype()):
        pass
    return counts
