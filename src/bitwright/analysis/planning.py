"""A budget in the user's units -> a recipe, and the proof: foretold losses, solved for, made, measured and corrected.

    sensitivities (allocation/)  ->  integer program  ->  quantize  ->  measure on text that the plan never saw
                                         ^                                         |
                                         +---- loss a unit of foretold loss -------+

What is foretold adds up tensors one by one and stops at the second order. How far that is from the truth for this model is
one factor, which the first plan that is made and measured tells; where the budget limits the loss, the program is solved
again with it, at most ROUNDS times. Rounded activations add a share of their own, measured beforehand on the model at 8 bits.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.allocation.budget import PROMPT, Budget, in_users_units
from bitwright.allocation.candidates import SCHEMES, Candidate, Unit
from bitwright.allocation.device import DeviceCosts
from bitwright.allocation.energy import estimate
from bitwright.allocation.memory import Running, buffer_bytes, cache_bytes, matrix_bytes, process_bytes
from bitwright.allocation.sensitivity import sensitivities
from bitwright.allocation.solver import Doubles, choose, totals
from bitwright.analysis.evaluate import figures, joined, measure
from bitwright.calibration.self_written import self_written
from bitwright.calibration.text import Source, Watch, cut, unwatched
from bitwright.core import Recipe, Scheme
from bitwright.errors import BudgetError
from bitwright.models.base import LanguageModel
from bitwright.quantization import QuantizedModel, quantize

Tokens = npt.NDArray[np.int32]

PLAN_WINDOWS, PLAN_LENGTH = 16, 512  # of the calibration text, that sensitivities are found on
HELD_OUT_WINDOWS, HELD_OUT_LENGTH = 16, 256  # of text that nothing else sees
ROUNDS = 4
CLOSE = 0.02  # of a limited loss: what is aimed below it, and half of what a plan may leave unused
DEPTH = 128  # tokens of context at which speed is foretold


@dataclass(frozen=True)
class Settings:
    """How to plan: which candidates, what text, for which use."""

    schemes: tuple[str, ...] = SCHEMES
    method: str = "gptq"
    rotate: bool = True
    calibration: Source = field(default_factory=Source)
    held_out: str | None = None  # text to verify on; by default more of the model's own
    threads: int | None = None
    device: Path | None = None  # costs that another machine measured, to plan for it
    context: int = 1024
    verify: bool = True


@dataclass(frozen=True)
class Plan:
    """`foretold` and `measured` by quantity: bytes, divergence, seconds, prefill, ram, joules. `measured` holds what was.

    `units` and `chosen` are the candidates and which was taken; `factor` is the loss a unit of foretold loss, `noise` that of
    rounded activations, both as of the last solution; `interval` is that of the measured divergence; `device` is None where
    nothing asked for its speed.
    """

    recipe: Recipe
    budget: Budget
    units: tuple[Unit, ...]
    chosen: tuple[int, ...]
    foretold: dict[str, float]
    measured: dict[str, float]
    interval: tuple[float, float] | None
    factor: float
    noise: float
    device: DeviceCosts | None

    def candidates(self) -> Iterator[tuple[Unit, Candidate]]:
        """Each unit with what was chosen for it."""
        for unit, index in zip(self.units, self.chosen, strict=True):
            yield unit, unit.candidates[index]

    def to_dict(self) -> dict[str, Any]:
        """What the recipe file says of the plan, JSON-ready."""
        return {
            "budget": self.budget.given() | ({"objective": self.budget.objective} if self.budget.objective else {}),
            "foretold": self.foretold,
            "measured": self.measured,
            "measured_divergence_interval": list(self.interval) if self.interval else None,
            "factor": self.factor,
            "activations": self.noise,
            "machine": self.device.machine if self.device else None,
        }


def plan(  # noqa: PLR0913 - the public face: every limit by its name
    model: LanguageModel,
    *,
    max_bytes: int | None = None,
    max_kl: float | None = None,
    max_drop: float | None = None,
    min_speed: float | None = None,
    min_prefill: float | None = None,
    max_ram: int | None = None,
    max_energy: float | None = None,
    objective: str = "",
) -> Recipe:
    """The recipe that meets a budget best; the units are those of `Budget`. Raises `BudgetError`, and takes minutes."""
    budget = Budget(max_bytes, max_ram, max_kl, max_drop, min_speed, min_prefill, max_energy, objective)
    return find_plan(model, budget).recipe


def find_plan(model: LanguageModel, budget: Budget, settings: Settings | None = None, watch: Watch = unwatched) -> Plan:
    """The recipe that meets the budget best. Raises `BudgetError` naming the nearest budget that can be met.

    `watch` is told what is being done. Takes minutes: most of them go into `verify`.
    """
    return _Planner(model, budget, settings or Settings(), watch).run()


def recipe_of(units: Sequence[Unit], chosen: Sequence[int], factor: float) -> Recipe:
    """One choice for each tensor, with the reason beside it."""
    choices = []
    for unit, index in zip(units, chosen, strict=True):
        choices.append(replace(unit.candidates[index].choice, reason=reason_of(unit, index, factor)))
    return Recipe(tuple(choices))


def reason_of(unit: Unit, index: int, factor: float) -> str:
    """What the choice costs, and what the next smaller and larger would."""
    ordered = sorted(range(len(unit.candidates)), key=lambda i: unit.candidates[i].bits)
    position = ordered.index(index)
    parts = [f"KL {factor * unit.candidates[index].divergence:.2g}"]
    for step in (-1, 1):
        if 0 <= position + step < len(ordered):
            other = unit.candidates[ordered[position + step]]
            parts.append(f"{other.choice.scheme} {factor * other.divergence:.2g}")
    return "; ".join(parts)


class _Planner:
    def __init__(self, model: LanguageModel, budget: Budget, settings: Settings, watch: Watch) -> None:
        self.model, self.budget, self.settings, self.watch = model, budget, settings, watch
        self.limits = budget.limits()
        self.architecture = model.architecture
        self.factor, self.noise = 1.0, 0.0
        self.fixed: dict[str, float] = {}
        self.device: DeviceCosts | None = None

    def run(self) -> Plan:
        settings = self.settings
        schemes = [Scheme.parse(scheme) for scheme in settings.schemes]
        windows = settings.calibration.tokens(self.model, self._writer, self.watch)
        part = windows[:PLAN_WINDOWS, :PLAN_LENGTH]
        with self.watch("finding what each tensor's error costs") as progress:
            units = sensitivities(self.model, part, schemes, settings.method, settings.rotate, progress)
        self.units = [unit for unit in units if unit.candidates]
        self.text = self._held_out()
        self.costs = self._costs(schemes)
        if settings.verify:
            with self.watch("measuring what rounded activations cost") as progress:
                self.noise = self._noise()
        chosen = self._solved()
        if not settings.verify:
            return self._plan(chosen, self._sums(chosen), {}, None)
        return self._proved(chosen)

    def _proved(self, chosen: list[int]) -> Plan:
        """Plans made and measured until one keeps the limit of loss and leaves little of it unused."""
        limit, kept, nearest = self.limits.get("divergence", np.inf), None, np.inf
        for attempt in range(ROUNDS):
            foretold = self._sums(chosen)
            measured, interval = self._verified(chosen, f"making and measuring plan {attempt + 1}")
            result = self._plan(chosen, foretold, measured, interval)
            loss = measured["divergence"]
            nearest = min(nearest, loss)
            if loss <= limit and (kept is None or foretold[self.budget.wanted] < kept.foretold[self.budget.wanted]):
                kept = result
            if limit == np.inf or (1 - 2 * CLOSE) * limit <= loss <= limit:
                break
            self._learn(foretold, measured)
            self.limits["divergence"] = (1 - CLOSE) * limit  # what is foretold is never hit exactly
            again = self._solved()
            if again == chosen:
                break
            chosen = again
        if kept is None:
            said = in_users_units({"divergence": nearest})
            raise BudgetError(f"the loss that was measured is above the limit after {attempt + 1} tries; the nearest is {said}")
        return kept

    def _writer(self) -> LanguageModel:
        return quantize(self.model, Recipe.uniform("int8-channel"))

    def _held_out(self) -> list[Tokens]:
        """Windows that neither the plan nor calibration sees."""
        if not self.settings.verify:
            return []
        length = min(HELD_OUT_LENGTH, self.architecture.context_length)
        shape = (HELD_OUT_WINDOWS, length)
        if self.settings.held_out is not None:
            return list(cut(self.model, self.settings.held_out, shape, "the text"))
        with self.watch("writing text to verify on") as progress:
            return list(self_written(self.model, shape, self.settings.calibration.seed + 1, self._writer, progress))

    def _costs(self, schemes: Sequence[Scheme]) -> dict[str, list[Doubles]]:
        """Every quantity of every candidate; and what is the same for all plans goes to `fixed`."""
        settings, wanted = self.settings, {self.budget.wanted, *self.limits}
        vectors = sum(self.model.stored_bits(name) for name in self.model.names() if not self._chosen_for(name))
        self.fixed["bytes"] = vectors / 8
        device = None
        if settings.verify or settings.device or wanted & {"seconds", "prefill"}:
            device = self._measured_device(schemes)
            self.device, other = device, device.other_seconds(self.architecture, DEPTH)
            self.fixed |= {"seconds": other, "prefill": PROMPT * other}
        if "ram" in wanted or settings.verify:
            running = Running(settings.context, device.threads if device else 1)
            buffers = cache_bytes(self.architecture, running) + buffer_bytes(self.architecture, running)
            self.fixed["ram"] = process_bytes(self.model.path) + buffers + vectors / 8
        table: dict[str, list[Doubles]] = {}
        for unit in self.units:
            for quantity, values in self._of_unit(unit, device).items():
                table.setdefault(quantity, []).append(np.array(values, np.float64))
        return table

    def _measured_device(self, schemes: Sequence[Scheme]) -> DeviceCosts:
        settings = self.settings
        if settings.device is not None:
            return DeviceCosts.read(settings.device, self.architecture, schemes, settings.rotate)
        with self.watch("measuring this device") as progress:
            return DeviceCosts.measured(self.architecture, schemes, settings.threads, progress, settings.rotate)

    def _of_unit(self, unit: Unit, device: DeviceCosts | None) -> dict[str, list[float]]:
        size = float(np.prod(unit.shape))
        costs: dict[str, list[float]] = {"bytes": [], "divergence": [], "joules": []}
        for candidate in unit.candidates:
            scheme, rotated = candidate.choice.scheme, candidate.choice.rotate
            stored = candidate.bits / 8
            costs["bytes"].append(stored)
            costs["divergence"].append(candidate.divergence)
            costs["joules"].append(0.0 if unit.looked_up else estimate(stored, size).joules)
            if "ram" in self.fixed:
                costs.setdefault("ram", []).append(stored + matrix_bytes(scheme, unit.shape, rotated))
            if device is not None:
                costs.setdefault("seconds", []).append(
                    0.0 if unit.looked_up else device.decode_seconds(scheme, unit.shape, rotated)
                )
                costs.setdefault("prefill", []).append(
                    0.0 if unit.looked_up else device.prefill_seconds(scheme, unit.shape, PROMPT, rotated)
                )
        return costs

    def _chosen_for(self, name: str) -> bool:
        return any(unit.name == name for unit in self.units)

    def _corrected(self) -> tuple[dict[str, list[Doubles]], dict[str, float]]:
        """Costs and constants with what has been learnt of the loss."""
        divergence = [self.factor * column for column in self.costs["divergence"]]
        return self.costs | {"divergence": divergence}, self.fixed | {"divergence": self.noise}

    def _solved(self) -> list[int]:
        """The best choice whose files, to the byte, are within the limit."""
        limits = dict(self.limits)
        while True:
            costs, fixed = self._corrected()
            try:
                chosen = choose(costs, fixed, self.budget.wanted, limits)
            except BudgetError as fault:
                raise BudgetError(f"{fault}; the nearest that can be met: {in_users_units(fault.nearest)}") from fault
            beyond = self._made(chosen).size_bytes() - self._sums(chosen)["bytes"]
            self.fixed["bytes"] += beyond  # the files hold a header, names and a tokenizer, too
            if "bytes" not in limits or self._sums(chosen)["bytes"] <= limits["bytes"]:
                return chosen

    def _sums(self, chosen: Sequence[int]) -> dict[str, float]:
        costs, fixed = self._corrected()
        return totals(costs, fixed, chosen)

    def _made(self, chosen: Sequence[int]) -> QuantizedModel:
        return quantize(self.model, recipe_of(self.units, chosen, self.factor), self.settings.calibration)

    def _verified(self, chosen: Sequence[int], what: str) -> tuple[dict[str, float], tuple[float, float]]:
        """Bytes and divergence of the plan, made and measured."""
        made = self._made(chosen)
        with tempfile.TemporaryDirectory(prefix="bitwright-plan-") as directory:
            output = Path(directory) / "artifact"
            made.calibrate(output, self.watch)
            saved = made.save(output)
            size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
            with self.watch(what) as progress:
                scores = joined(measure(saved, self.model, self.text, "int8", progress))
        found = figures(scores, [len(window) - 1 for window in self.text], paired=True)
        return {"bytes": float(size), "divergence": found["kl_mean"]}, found["kl_mean_interval"]

    def _learn(self, foretold: dict[str, float], measured: dict[str, float]) -> None:
        loss, expected = measured["divergence"] - self.noise, foretold["divergence"] - self.noise
        if loss > 0 and expected > 0:
            self.factor *= loss / expected

    def _noise(self) -> float:
        """What 8-bit activations add, on the model at 8 bits a weight."""
        eight = self._writer()
        losses = {}
        for activations in ("int8", "fp32"):
            scores = joined(measure(eight, self.model, self.text, activations, None))
            losses[activations] = float(scores.kl.mean())
        return max(0.0, losses["int8"] - losses["fp32"])

    def _plan(
        self, chosen: list[int], foretold: dict[str, float], measured: dict[str, float], interval: tuple[float, float] | None
    ) -> Plan:
        recipe = recipe_of(self.units, chosen, self.factor)
        return Plan(
            recipe,
            self.budget,
            tuple(self.units),
            tuple(chosen),
            foretold,
            measured,
            interval,
            self.factor,
            self.noise,
            self.device,
        )
