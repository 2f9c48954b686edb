"""What a plan is asked for beside its budget, and what it is when it is found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bitwright.allocation.budget import Budget
from bitwright.allocation.candidates import SCHEMES, Candidate, Offer, Unit
from bitwright.allocation.device import DeviceCosts
from bitwright.allocation.energy import ESTIMATE, RAPL
from bitwright.allocation.engine_schemes import ALL, engine_schemes
from bitwright.allocation.sensitivity import units_of
from bitwright.allocation.ways import Way, parse_ways
from bitwright.analysis.tasks.paired import Drop
from bitwright.analysis.trial import ANSWERS, Task
from bitwright.calibration.text import Source
from bitwright.core import Choice, Recipe, Scheme
from bitwright.errors import EngineError
from bitwright.models.base import LanguageModel
from bitwright.runtime import ACTIVATIONS, RuntimeSetting


@dataclass(frozen=True)
class Settings:
    """How to plan: which candidates, what text, for which use.

    `schemes` are candidates, each in each of the `methods` as ways.py spells them, columns turned with `rotate` where these do
    not say; ALL stands for every scheme that the engine multiplies as integers or by look-up. Tensors whose names match one of
    the `fixed` patterns have the scheme beside it. `calibration` is the text that
    sensitivities are found on and weights are rounded by; `held_out` that on which plans are proved, by default more of the
    model's own. Speed is that of `threads`, on this machine or on the one that measured `device`. Memory is that of a run
    through `context` tokens. `activations` are the engine's kinds that the plan may take, the same for all layers. `verify`
    makes and measures the plan, which then takes up to `swaps` steps of climbing, each made and measured, too. `task` is any
    measure of quality, for `Budget.max_task_drop`.
    """

    schemes: tuple[str, ...] = SCHEMES
    fixed: tuple[tuple[str, str], ...] = ()
    methods: tuple[str, ...] = ("gptq",)
    rotate: bool = True
    calibration: Source = field(default_factory=Source)
    held_out: str | None = None
    threads: int | None = None
    device: Path | None = None
    context: int = 1024
    activations: tuple[str, ...] = ("int8", "int16")
    verify: bool = True
    swaps: int = 1
    task: Task | None = None

    def offer(self, model: LanguageModel) -> Offer:
        """For the matrices of `model`. Raises `SchemeError` for a scheme, `RecipeError` for a method and `EngineError` for
        activations that a plan cannot choose.
        """
        for kind in self.activations:
            if kind not in ACTIVATIONS:
                raise EngineError(f"unknown activations {kind!r} for a plan; choose from {', '.join(ACTIVATIONS)}")
        fixed = tuple((pattern, Scheme.parse(scheme)) for pattern, scheme in self.fixed)
        schemes: list[Scheme] = []
        for scheme in self.schemes:
            schemes += engine_schemes(widths_of(model)) if _is_all(scheme) else [Scheme.parse(scheme)]
        return Offer(tuple(dict.fromkeys(schemes)), parse_ways(self.methods, self.rotate), fixed)

    def weighing(self, budget: Budget) -> Settings:
        """The same without the activations that nothing in a budget speaks for: int8 lose something, and gain speed alone."""
        exact = tuple(kind for kind in self.activations if kind != "int8")
        return self if asks_for_speed(budget) or not exact else replace(self, activations=exact)

    @property
    def all_schemes(self) -> bool:
        return any(map(_is_all, self.schemes))


def _is_all(scheme: str) -> bool:
    return scheme.strip().lower() == ALL


def asks_for_speed(budget: Budget) -> bool:
    return bool({budget.wanted, *budget.limits()} & {"seconds", "prefill"})


def widths_of(model: LanguageModel) -> set[int]:
    """Columns of the matrices that a plan chooses for."""
    return {unit.shape[1] for unit in units_of(model)}


@dataclass(frozen=True)
class Step:
    """One step of climbing: how many tensors changed schemes, the loss before and after on the text for comparing."""

    swapped: int
    before: float
    after: float
    kept: bool


@dataclass(frozen=True)
class Tried:
    """A plan that was made: what was said of it before, and what was measured, by quantity, as `Plan` has them."""

    name: str
    blind: dict[str, float]
    promised: dict[str, float]
    foretold: dict[str, float]
    measured: dict[str, float]


@dataclass(frozen=True)
class Plan:
    """By quantity (bytes, divergence, seconds, prefill, ram, joules) what was said of the plan before it was made, three times:

    `blind`      what costs alone foretell, untouched by what was measured of any plan
    `promised`   the same, with the speeds of a stand-in of its mix of schemes, at the pace that the machine had then
    `foretold`   what costs foretell as corrected by the plans made before, and the stand-in's speed at the pace of the costs

    All three are alike but for speeds in the first plan that is made. `measured` holds what was, with
    `loss_reference` and `loss_added`, nats a token, which are the logarithms of the model's perplexity and of what the plan
    multiplies it by (foretold as the divergence), with `kl_p99`, `kl_max`, `top1_agreement` and `flips`, nats a token and shares
    of the tokens (trial.py), and the `slowness` of the machine at that time, of prompts `prefill_slowness`. Joules are measured
    where the processor counts them, and foretold by an estimate that such a count corrects. `tried` are all plans that were made.

    `units` and `chosen` are the candidates and which was taken; `weights` say by how much a unit's foretold loss counts,
    after `factor`, the loss a unit of foretold loss; `noise` is that of rounded `activations`; `intervals` are those of what
    was measured that have one, 95 %; `device` is None where nothing asked for its speed.
    """

    recipe: Recipe
    budget: Budget
    units: tuple[Unit, ...]
    chosen: tuple[int, ...]
    blind: dict[str, float]
    promised: dict[str, float]
    foretold: dict[str, float]
    measured: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    factor: float
    weights: tuple[float, ...]
    activations: str
    noise: float
    device: DeviceCosts | None
    steps: tuple[Step, ...] = ()
    tried: tuple[Tried, ...] = ()
    drop: Drop | None = None

    def candidates(self) -> Iterator[tuple[Unit, Candidate]]:
        """Each unit with what was chosen for it."""
        for unit, index in zip(self.units, self.chosen, strict=True):
            yield unit, unit.candidates[index]

    @cached_property
    def several_ways(self) -> bool:
        """Whether there was a choice of ways for a scheme."""
        return len({way for unit in self.units for way in _ways(unit)}) > 1

    def label(self, unit: Unit, candidate: Candidate) -> str:
        """The scheme, and the way where there was a choice of several."""
        choice = candidate.choice
        return f"{choice.scheme} {Way.of(choice)}" if self.several_ways and _has_way(unit, choice) else str(choice.scheme)

    def at_pace(self, quantity: str) -> float:
        """What was promised, times of a machine as slow as it was while they were measured."""
        if quantity == "seconds" and "slowness" in self.measured:
            return self.foretold[quantity] * self.measured["slowness"]  # both against when costs were measured
        return self.promised[quantity] * (self.measured.get("prefill_slowness", 1.0) if quantity == "prefill" else 1.0)

    @property
    def energy_source(self) -> str:
        """Of the joules that are known best."""
        return RAPL if "joules" in self.measured else ESTIMATE

    def factors(self) -> list[float]:
        """By how much to multiply the foretold loss of each unit's candidates."""
        return [self.factor * weight for weight in self.weights]

    def losses(self) -> list[float]:
        """What each unit's choice is foretold to cost, nats a token."""
        return [factor * each.divergence for factor, (_, each) in zip(self.factors(), self.candidates(), strict=True)]

    def _interval(self, quantity: str) -> list[float] | None:
        return list(self.intervals[quantity]) if quantity in self.intervals else None

    def to_dict(self) -> dict[str, Any]:
        """What the recipe file says of the plan, JSON-ready."""
        return {
            "budget": self.budget.given() | ({"objective": self.budget.objective} if self.budget.objective else {}),
            "blind": self.blind,
            "promised": self.promised,
            "foretold": self.foretold,
            "measured": self.measured,
            "tried": [vars(each) for each in self.tried],
            "energy_source": self.energy_source,
            **{f"measured_{quantity}_interval": self._interval(quantity) for quantity in ANSWERS if quantity != "kl_max"},
            "task": vars(self.drop) if self.drop else None,
            "swaps": [vars(step) for step in self.steps],
            "factor": self.factor,
            "activations": {"kind": self.activations, "divergence": self.noise},
            "machine": self.device.machine if self.device else None,
        }


def recipe_of(
    units: Sequence[Unit], chosen: Sequence[int], losses: Sequence[float], runtime: tuple[RuntimeSetting, ...]
) -> Recipe:
    """One choice for each tensor, with the reason beside it. `losses`: by how much to multiply each unit's foretold loss."""
    choices = []
    for unit, index, factor in zip(units, chosen, losses, strict=True):
        choices.append(replace(unit.candidates[index].choice, reason=reason_of(unit, index, factor)))
    return Recipe(tuple(choices), runtime=runtime)


def reason_of(unit: Unit, index: int, factor: float) -> str:
    """What the choice costs, what the best other way of its scheme would, and what the next smaller and larger would."""
    chosen = unit.candidates[index]
    parts = [f"KL {factor * chosen.divergence:.2g}"]
    alike = [each for each in unit.candidates if each.choice.scheme == chosen.choice.scheme and each is not chosen]
    ordered = sorted((each for each in unit.candidates if each not in alike), key=lambda each: each.bits)
    position = ordered.index(chosen)
    smaller, larger = ordered[:position][::-1], ordered[position + 1 :]
    for beside in (alike, *(_of_size(each) for each in (smaller, larger))):
        if beside:
            best = min(beside, key=lambda each: each.divergence)
            parts.append(f"{_beside(unit, best.choice, chosen.choice)} {factor * best.divergence:.2g}")
    return "; ".join(parts)


def _of_size(ordered: Sequence[Candidate]) -> list[Candidate]:
    """Those of the first scheme: its ways."""
    return [each for each in ordered if each.choice.scheme == ordered[0].choice.scheme]


def _beside(unit: Unit, choice: Choice, chosen: Choice) -> str:
    """What is other in it: its scheme, and its way where the unit had several."""
    parts = [] if choice.scheme == chosen.scheme else [str(choice.scheme)]
    if Way.of(choice) != Way.of(chosen) and choice.scheme.scaled and len(_ways(unit)) > 1:
        parts.append(f"by {Way.of(choice)}")
    return " ".join(parts)


def _has_way(unit: Unit, choice: Choice) -> bool:
    return choice.scheme.scaled and not unit.looked_up


def _ways(unit: Unit) -> set[Way]:
    return {Way.of(each.choice) for each in unit.candidates if _has_way(unit, each.choice)}
