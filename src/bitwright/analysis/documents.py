"""What `analyze` and `plan` found, as the document that analysis/report/document.py describes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright import __version__
from bitwright.allocation.budget import PROMPT, in_users_units
from bitwright.allocation.candidates import Candidate, Unit
from bitwright.allocation.ways import Way
from bitwright.analysis import frontiers, noise_floor, plan_details, rooflines
from bitwright.analysis.attribution import Attribution, Share
from bitwright.analysis.ceilings import Ceilings
from bitwright.analysis.plan_types import Plan
from bitwright.analysis.seen_inputs import Seen, counts_on_the_grid
from bitwright.analysis.trial import ANSWERS
from bitwright.core import Recipe
from bitwright.models.base import Dense, LanguageModel
from bitwright.quantization import QuantizedModel
from bitwright.runtime import activations_of, setting_of

Document = dict[str, Any]

SAID: dict[
    str, tuple[str, str, Callable[[float], float]]
] = {  # of a quantity: its name, its unit, and the figure that people know it by
    "bytes": ("size", "bytes", lambda x: x),
    "divergence": ("KL", "nats a token", lambda x: x),
    "seconds": ("decoding", "tokens/s", lambda x: 1 / x),
    "prefill": ("prompts", "tokens/s", lambda x: PROMPT / x),
    "ram": ("peak memory", "bytes", lambda x: x),
    "joules": ("energy", "J a token", lambda x: x),
}


@dataclass(frozen=True)
class Made:
    """Of which model, by which command."""

    model: LanguageModel
    command: str

    def opening(self, kind: str, verdict: str) -> Document:
        """What every document begins with."""
        architecture = self.model.architecture
        weights = sum(int(np.prod(self.model.shape(name))) for name in self.model.names())
        model = {"name": self.model.path.resolve().name, "parameters": weights, "blocks": architecture.layers}
        return {"kind": kind, "verdict": verdict, "model": model, "made_by": self.command, "bitwright": __version__}


def plan_document(made: Made, plan: Plan, ceilings: Ceilings | None = None) -> Document:
    """Of a plan: where every bit went and why, and what was foretold beside what was measured.

    Takes one forward pass of a window of text, for histograms.
    """
    document = made.opening("plan", verdict_of_plan(plan))
    window = plan_details.window_of(made.model)
    document |= {
        "machine": plan.device.machine if plan.device else None,
        **_running(plan.recipe),
        "whole": _whole(plan, document["model"]["parameters"]) | (_floor(made.model, window) if plan.measured else {}),
        "shares": "estimated",
        "tensors": [
            _planned(unit, candidate, loss) | {"reason": choice.reason}
            for (unit, candidate), loss, choice in zip(plan.candidates(), plan.losses(), plan.recipe.choices, strict=True)
        ],
        "fixes": plan_details.steps_up(plan),
        "histograms": plan_details.histograms(made.model, plan, window),
        "frontier": frontiers.of_plan(plan),
        "predicted": _promises(plan),
        "swaps": [vars(step) for step in plan.steps],
        "budget": _budget(plan),
        "energy": {"joules_per_token": (plan.foretold | plan.measured)["joules"], "how": plan.energy_source},
    }
    if plan.device is not None and ceilings is not None:
        document["roofline"] = rooflines.of_plan(plan, plan.device, made.model.architecture, ceilings)
    return document


def _running(model: QuantizedModel | Recipe) -> Document:
    """How the engine holds activations and keeps keys and values, as the recipe says."""
    setting = setting_of(model)
    return {"activations": setting.activations, "kv_cache": setting.kv_cache}


def _whole(plan: Plan, weights: int) -> Document:
    """What is known of the made plan as one, or foretold of its size where none was made."""
    size, measured = int(plan.measured.get("bytes", plan.foretold["bytes"])), plan.measured
    whole: Document = {"size_bytes": size, "bits_per_weight": 8 * size / weights}
    if not measured:
        return whole
    between = {name: plan.intervals[quantity] for quantity, name in ANSWERS.items() if quantity in plan.intervals}
    return (
        whole
        | {name: measured[quantity] for quantity, name in ANSWERS.items()}
        | {f"{name}_interval": list(interval) for name, interval in between.items()}
        | {"perplexity": math.exp(measured["loss_reference"] + measured["loss_added"])}
        | {"perplexity_reference": math.exp(measured["loss_reference"])}
    )


def _floor(model: LanguageModel, window: npt.NDArray[np.int32] | None) -> Document:
    """The noise floor of KL on that window, in nats a token; nothing where half precision overflows."""
    floor = None if window is None else noise_floor.divergence(model, window)
    return {} if floor is None else {"noise_floor_kl": float(floor.mean())}


def verdict_of_plan(plan: Plan) -> str:
    """One sentence."""
    size = plan.measured.get("bytes", plan.foretold["bytes"])
    if "divergence" not in plan.measured:
        return (
            f"About {size / 1e6:.1f} MB with an estimated loss of {plan.foretold['divergence']:.3g} nats a token; "
            "nothing was measured yet."
        )
    spent: dict[str, float] = defaultdict(float)
    for unit, loss in zip(plan.units, plan.losses(), strict=True):
        spent[unit.kind] += loss
    worst = max(spent, key=lambda kind: spent[kind])
    return (
        f"{size / 1e6:.1f} MB lose {plan.measured['divergence']:.3g} nats a token on text that the plan never saw "
        f"(promised {plan.promised['divergence']:.3g}); the largest share of it is in {worst}."
    )


def analysis_document(
    made: Made, quantized: QuantizedModel, found: Attribution, whole: Mapping[str, Any], seen: Mapping[str, Seen]
) -> Document:
    """Of a quantized model: which tensor costs what. `whole` are an evaluation's figures, `seen` what its matrices read."""
    kinds = by_kind(quantized, found)
    document = made.opening("analysis", verdict_of_analysis(whole, kinds, found))
    document |= {
        "whole": dict(whole),
        "kinds": kinds,
        "shares": "measured" if found.measured else "estimated",
        **_running(quantized),
        "tensors": [_examined(quantized, part, seen[part.tensor]) for part in found.shares],
        "estimate": {
            "rank_correlation": found.rank_correlation,
            "tensors": len(found.shares if found.measured else found.sample),
            "sample": [vars(each) for each in found.sample],
        },
        "cumulative": [{"block": block, "kl": kl} for block, kl in enumerate(found.cumulative[1:])],
        "histograms": histograms([seen[part.tensor] for part in found.shares[: plan_details.SHOWN]], activations_of(quantized)),
    }
    return document | ({"additivity": _additivity(found)} if found.measured else {})


def _additivity(found: Attribution) -> Document:
    return {"sum_of_parts": found.sum_of_parts, "together": found.together}


def by_kind(quantized: QuantizedModel, found: Attribution) -> list[Document]:
    """Kinds of tensors with their shares of all weights and of the summed loss, the one that loses most for its size first."""
    sizes: dict[str, int] = defaultdict(int)
    losses: dict[str, float] = defaultdict(float)
    for part in found.shares:
        sizes[part.kind] += int(np.prod(quantized.shape(part.tensor)))
        losses[part.kind] += part.cost
    weights, loss = sum(sizes.values()), max(found.sum_of_parts, 1e-30)
    rows = [
        {"kind": kind, "weights_share": sizes[kind] / weights, "kl": losses[kind], "kl_share": losses[kind] / loss}
        for kind in sizes
    ]
    return sorted(rows, key=lambda row: -row["kl_share"] / row["weights_share"])


def verdict_of_analysis(whole: Mapping[str, Any], kinds: Sequence[Document], found: Attribution) -> str:
    """What is lost, where most of it arises, and where most for the size; and how far that can be trusted, if it is estimated."""
    most, densest, worst = max(kinds, key=lambda row: float(row["kl"])), kinds[0], found.shares[0]
    share = worst.cost / max(found.sum_of_parts, 1e-30)
    dense = f"{100 * densest['kl_share']:.0f} % of the sum in {100 * densest['weights_share']:.2g} % of the weights"
    said = f"{most['kind']} costs most of all kinds ({100 * most['kl_share']:.0f} % of the sum)"
    said += f" and most for its size ({dense})" if most is densest else f", {densest['kind']} most for its size ({dense})"
    by, trust = ("", "") if found.measured else ("by estimate ", f" {verdict_of_estimate(found)}")
    lost = f"Quantizing costs {whole['kl_mean']:.3g} nats a token"
    return f"{lost}; {by}{said}, and of all tensors {worst.tensor} ({100 * share:.0f} %).{trust}"


def verdict_of_estimate(found: Attribution) -> str:
    """One sentence: that shares are estimated, and how they order the tensors that were measured."""
    if found.rank_correlation is None:
        return "Shares are estimated; fewer than two tensors lose anything, so no order was measured."
    rank = f"rank correlation with the measured losses of {len(found.sample)} tensors {found.rank_correlation:.2f}"
    return f"Shares are estimated: {rank}."


def histograms(shown: Sequence[Seen], activations: str) -> list[Document]:
    """Weights of these tensors on the grids that they are rounded to, and what they are multiplied with on the engine's."""
    rows = [
        {
            "name": seen.tensor,
            "weights": seen.weights and seen.weights.to_dict(),
            "activations": None if seen.activations is None else counts_on_the_grid(seen.activations, activations),
        }
        for seen in shown
    ]
    return [row for row in rows if row["weights"] or row["activations"]]


def _examined(quantized: QuantizedModel, part: Share, seen: Seen) -> Document:
    stored = quantized.stored(part.tensor)
    choice = quantized.recipe.choice_for(part.tensor)
    return (
        _line(
            part.tensor, part.kind, part.layer, stored.shape, quantized.scheme_of(part.tensor), quantized.stored_bits(part.tensor)
        )
        | {"method": choice.method if choice and not isinstance(stored, Dense) else None}
        | {"kl_alone": part.alone, "kl_alone_interval": part.alone_interval and list(part.alone_interval)}
        | {"kl_regained": part.regained}
        | {"kl_estimated": part.estimated}
        | seen.metrics.to_dict()
    )


def _planned(unit: Unit, candidate: Candidate, loss: float) -> Document:
    choice = candidate.choice
    way = str(Way.of(choice)) if choice.scheme.scaled and not unit.looked_up else choice.method
    return _line(unit.name, unit.kind, unit.layer, unit.shape, str(choice.scheme), candidate.bits) | {
        "method": way,
        "kl_estimated": loss,
    }


def _line(name: str, kind: str, layer: int, shape: Sequence[int], scheme: str, stored_bits: int) -> Document:
    weights = int(np.prod(shape))
    return {
        "name": name,
        "layer": layer,
        "kind": kind,
        "shape": list(shape),
        "scheme": scheme,
        "bits": stored_bits / weights,
        "bytes": -(-stored_bits // 8),
    }


def _promises(plan: Plan) -> list[Document]:
    """What was promised of the plan against what was measured; where it is not the first that was made, that one's KL, too."""
    rows = [
        _predicted(quantity, plan.promised[quantity], true)
        for quantity, true in plan.measured.items()
        if quantity in plan.promised and quantity != "joules"  # an estimate of a part says nothing of the processor's whole
    ]
    if plan.tried and plan.tried[0].measured is not plan.measured:
        first = plan.tried[0]
        row = _predicted("divergence", first.promised["divergence"], first.measured["divergence"])
        rows.append(row | {"quantity": f"{row['quantity']} of the first plan"})
    return rows


def _predicted(quantity: str, promised: float, true: float) -> Document:
    name, unit, figure = SAID[quantity]
    return {"quantity": name, "predicted": figure(promised), "true": figure(true), "unit": unit}


def _budget(plan: Plan) -> list[Document]:
    rows = []
    for quantity, limit in plan.budget.limits().items():
        reached = plan.measured.get(quantity, plan.foretold[quantity])
        option = in_users_units({quantity: limit}).partition(" ")[0].removeprefix("--")
        _, unit, figure = SAID[quantity]
        unit += f" ({plan.energy_source})" if quantity == "joules" else ""
        met = reached <= limit * (1 + 1e-9)
        rows.append({"quantity": option, "limit": figure(limit), "reached": figure(reached), "unit": unit, "met": met})
    if (share := plan.budget.max_drop) is not None:  # of perplexity; foretold as the KL is
        grown = math.expm1(plan.measured.get("loss_added", plan.foretold["divergence"]))
        rows.append({"quantity": "max-drop", "limit": share, "reached": grown, "unit": "share", "met": grown <= share})
    allowed = plan.budget.max_task_drop
    if allowed is not None and plan.drop is not None:
        drop = plan.drop.drop
        rows.append({"quantity": "max-task-drop", "limit": allowed, "reached": drop, "unit": "", "met": drop <= allowed})
    return rows
