"""A budget in the user's units -> a recipe, and the proof: foretold losses, solved for, made, measured and corrected.

    sensitivities (allocation/)  ->  integer program  ->  quantize  ->  measure on text that the plan never saw
                                         ^                                         |
                                         +-- what was measured over what was foretold, and swaps (climbing.py) --+

What is foretold adds up tensors one by one and stops at the second order. How far that is from the truth for this model is
one factor, which the first plan that is made and measured tells; where the budget limits what was measured, the program is
solved again with it, at most ROUNDS times. Rounded activations add a share of their own, measured beforehand on the model at
8 bits. A task's drop has no sum: the loss that it allows is searched for, from the rule of thumb that a KL of so many nats
costs a fifth of that in the share of right answers. A limit on perplexity is one on what is added to the loss on a text, which is
foretold as the KL is, and measured for itself.

What is said of a plan before it is made is kept three times (plan_types.py): as costs alone have it, none of them touched by
what was measured of a plan; with speeds of the plan's own stand-in; and as corrected by the plans that were made before.
What costs themselves need a run for, of rounded activations and narrower caches, is measured on calibration text, so that
nothing which is held against the proof has seen its text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from bitwright.allocation.budget import Budget, in_users_units
from bitwright.allocation.cache_plan import TYPES
from bitwright.allocation.candidates import Candidate, Offer, choices_for, stored_as
from bitwright.allocation.device import DeviceCosts
from bitwright.allocation.memory import Running
from bitwright.allocation.mix import Mix
from bitwright.allocation.sensitivity import sensitivities, units_of
from bitwright.allocation.stand_in import MixedStandIn
from bitwright.allocation.undominated import undominated
from bitwright.analysis.climbing import corrections, of_a_kind, regained, worth_restoring
from bitwright.analysis.dense_only import require_dense
from bitwright.analysis.evaluate import joined, measure
from bitwright.analysis.plan_costs import LOSSES, Costs, cache_losses
from bitwright.analysis.plan_devices import devices, is_timed_here
from bitwright.analysis.plan_texts import HeldOut, held_out, part_for_running, part_for_sensitivities, source_of, writer_of
from bitwright.analysis.plan_types import Plan, Settings, Step, Tried, recipe_of
from bitwright.analysis.scores import Scores
from bitwright.analysis.tasks.files import FileFigure
from bitwright.analysis.trial import DEPTH, Examination, Task, Trial, tried
from bitwright.calibration.marks import Marks, marks_of, remembered
from bitwright.calibration.text import Watch, unwatched
from bitwright.core import Recipe, Scheme
from bitwright.engine import Engine
from bitwright.errors import BudgetError
from bitwright.models.base import LanguageModel
from bitwright.quantization import QuantizedModel, quantize

__all__ = ["Plan", "Settings", "find_plan", "plan"]

Tokens = npt.NDArray[np.int32]

ROUNDS = 4
CLOSE = 0.02  # of a limit on what is measured: what is aimed below it, and half of what a plan may leave unused
LOSS_OF_DROP = 5.0  # nats a token that are tried first for a drop of 1 in a task's score
LUCK = 2.0  # by which less than its KL a text is believed to lose: perplexity may even fall by chance, KL may not
BISECTION = 2.0  # by which that loss is then made larger or smaller
MARK_BYTES = 0.3  # of a manifest's marks, a token of calibration text; a little more than calibration/marks.py makes
ESTIMATED_CACHE_LOSSES = (0.0, 0.00066, 0.057)  # of fp16, int8, int4, on the twin of SmolLM2 (docs/planning.md)
REASONS = 1.001  # the reasons beside choices take some room, too
MEASURED = (*LOSSES, "seconds", "prefill", "ram", "joules")  # limits that a made plan may be found to miss


def plan(  # noqa: PLR0913 - the public face: every limit by its name
    model: LanguageModel,
    *,
    max_bytes: int | None = None,
    max_kl: float | None = None,
    max_drop: float | None = None,
    max_task_drop: float | None = None,
    task: Task | None = None,
    min_speed: float | None = None,
    min_prefill: float | None = None,
    max_ram: int | None = None,
    max_energy: float | None = None,
    objective: str = "",
) -> Recipe:
    """The recipe that meets a budget best; the units are those of `Budget`. Raises `BudgetError`, and takes minutes.

    `task`, any `evaluate(model)` that gives a number or one an item, or a file's (`tasks.file_task`), is what `max_task_drop`
    limits the loss of.
    """
    budget = Budget(max_bytes, max_ram, max_kl, max_drop, min_speed, min_prefill, max_energy, objective, max_task_drop)
    return find_plan(model, budget, Settings(task=task)).recipe


def find_plan(model: LanguageModel, budget: Budget, settings: Settings | None = None, watch: Watch = unwatched) -> Plan:
    """The recipe that meets the budget best. Raises `BudgetError` naming the nearest budget that can be met, and
    `ModelConfigError` for a mixture of experts.

    `watch` is told what is being done. Takes minutes: most of them go into `verify`.
    """
    require_dense(model, "plans")
    return _Planner(model, budget, settings or Settings(), watch).run()


class _Planner:
    def __init__(self, model: LanguageModel, budget: Budget, settings: Settings, watch: Watch) -> None:
        self.model, self.budget, self.settings, self.watch = model, budget, settings.weighing(budget), watch
        self.asked = budget.asked()
        self.limits = dict(self.asked)  # of what is foretold: moved by what was measured
        self.timed: tuple[list[int], Mix] | None = None  # the last choice whose mix of schemes was
        self.tried: list[Tried] = []
        if budget.max_task_drop is not None:
            if settings.task is None or not settings.verify:
                raise BudgetError("a limit on a task's drop needs the task (--task FILE), and a plan that is made and measured")
            self.limits.setdefault("divergence", LOSS_OF_DROP * budget.max_task_drop)

    def run(self) -> Plan:
        settings = self.settings
        offer = settings.offer(self.model)
        self._refuse_too_small(offer)
        windows = source_of(self.settings).tokens(self.model, lambda: writer_of(self.model), self.watch)
        self.seen = part_for_running(windows)
        with self.watch("finding what each tensor's error costs") as progress:
            units = sensitivities(self.model, part_for_sensitivities(windows), offer, progress)
        units = [unit for unit in units if unit.candidates]
        units = undominated(units) if settings.all_schemes else units
        self._read_texts(remembered(self.model) | marks_of(windows))
        measured = self._devices(stored_as(units))
        threads = next(iter(measured.values())).threads if measured else 1
        running = self._running(threads)
        caches = self._cache_losses() if "ram" in {self.budget.wanted, *self.limits} else {}
        self.costs = Costs(self.model, units, running, self._noises(), measured, caches)
        chosen = self._solved()
        if not settings.verify:
            return self._plan(chosen, self.costs.sums(chosen), None)
        self.held = Examination(self.model, self.proof, self.climbing, running, self._task())
        return self._proved(chosen)

    def _proved(self, chosen: list[int]) -> Plan:
        """Plans made and measured until one keeps its limits and leaves little of a limited loss unused; then climbed from."""
        best: tuple[Plan, Trial] | None = None
        nearest: dict[str, float] = {}
        for attempt in range(ROUNDS):
            foretold, trial = self._tried(chosen, f"measuring plan {attempt + 1}")
            found, beyond = self._kept(f"plan {attempt + 1}", self._plan(chosen, foretold, trial)), self._beyond(trial)
            nearest = beyond if attempt == 0 or sum(beyond.values()) < sum(nearest.values()) else nearest
            if not beyond and (best is None or self._better(found, trial, best)):
                best = found, trial
            try:
                again = self._again(chosen, foretold, trial)
            except BudgetError:  # what was learnt leaves no other choice
                if best is None:
                    raise
                break
            if again is None:
                break
            chosen = again
        if best is None:
            said = in_users_units(nearest, measured=True)
            raise BudgetError(f"what was measured is beyond the limits after {attempt + 1} tries; the nearest: {said}")
        return self._climbed(*best)

    def _again(self, chosen: list[int], foretold: dict[str, float], trial: Trial) -> list[int] | None:
        """The next choice to try, with what the trial taught; None where there is none."""
        self._learn(self.costs.noises[self.costs.activations(chosen)], foretold, trial.measured)
        asked = {quantity: limit for quantity, limit in self.asked.items() if quantity in MEASURED}
        if self.budget.max_task_drop is not None and trial.drop is not None:
            kept = trial.drop.drop <= self.budget.max_task_drop
            self.limits["divergence"] = trial.measured["divergence"] * (BISECTION if kept else 1 / BISECTION)
            self.limits["divergence"] = min(self.limits["divergence"], asked.get("divergence", np.inf))
        else:
            beyond, losses = self._beyond(trial), [loss for loss in LOSSES if loss in asked]
            close = not losses or any(trial.measured[loss] >= (1 - 2 * CLOSE) * asked[loss] for loss in losses)
            if not beyond and close:
                return None
            for quantity in {*beyond, *losses} & set(asked):
                self.limits[quantity] = (1 - CLOSE) * asked[quantity]  # what is foretold is never hit exactly
        again = self._solved()
        return None if again == chosen else again

    def _climbed(self, found: Plan, trial: Trial) -> Plan:
        """The best plan that swaps lead to from one that was made."""
        steps: list[Step] = []
        for step in range(self.settings.swaps):
            units, made = self.costs.units, trial.saved
            foretold = found.losses()
            kinds, alone = of_a_kind([unit.kind for unit in units], foretold), worth_restoring(foretold)
            groups = [[units[position].name for position in group] for group in (*kinds, *([one] for one in alone))]
            with self.watch("looking for swaps") as progress:
                back = regained(self.model, made, groups, np.stack(self.climbing), progress)
            for position, weight in enumerate(corrections(foretold, kinds, alone, back)):
                self.costs.weights[position] *= weight
            try:
                chosen = self._solved()
            except BudgetError:  # by these weights not even this plan keeps the limits that it was measured to keep
                break
            swapped = sum(a != b for a, b in zip(found.chosen, chosen, strict=False))
            if not swapped:
                break
            sums, other = self._tried(chosen, f"measuring swap {step + 1}")
            better = self._kept(f"swap {step + 1}", self._plan(chosen, sums, other))
            kept = not self._beyond(other) and self._better(better, other, (found, trial))
            steps.append(Step(swapped, trial.climbing, other.climbing, kept))
            if not kept:
                break
            found, trial = better, other
        return replace(found, steps=tuple(steps), tried=tuple(self.tried))

    def _kept(self, name: str, made: Plan) -> Plan:
        """A plan that was made, of which what was said and what was measured is remembered."""
        self.tried.append(Tried(name, made.blind, made.promised, made.foretold, made.measured))
        return made

    def _better(self, found: Plan, trial: Trial, best: tuple[Plan, Trial]) -> bool:
        """Losses are compared on the text for it, energy as counted where it was, everything else as foretold."""
        wanted = self.budget.wanted
        if wanted == "divergence":
            return trial.climbing < best[1].climbing
        if wanted == "joules" and wanted in trial.measured:
            return trial.measured[wanted] < best[1].measured[wanted]
        return found.foretold[wanted] < best[0].foretold[wanted]

    def _beyond(self, trial: Trial) -> dict[str, float]:
        """What was measured beyond the user's limits, by quantity."""
        measured = {name: trial.measured[name] for name in MEASURED if name in self.asked and name in trial.measured}
        beyond = {name: value for name, value in measured.items() if value > self.asked[name]}
        allowed = self.budget.max_task_drop
        if allowed is not None and trial.drop is not None and trial.drop.drop > allowed:
            beyond["task"] = trial.drop.drop
        return beyond

    def _learn(self, noise: float, foretold: dict[str, float], measured: dict[str, float]) -> None:
        """Scales by what was measured over what was foretold."""
        costs = self.costs
        for quantity in MEASURED:
            constant = noise if quantity in LOSSES else 0.0
            if min(foretold.get(quantity, constant), measured.get(quantity, constant)) > constant:
                ratio = (measured[quantity] - constant) / (foretold[quantity] - constant)
                costs.scale[quantity] = costs.scale.get(quantity, 1.0) * ratio
        least, lost = costs.scale["divergence"] / LUCK, measured["loss_added"] > noise
        costs.scale["loss_added"] = max(least, costs.scale["loss_added"]) if lost else least

    def _refuse_too_small(self, offer: Offer) -> None:
        """What no candidate is small enough for needs no text to be known. Raises `BudgetError`."""
        units, least = units_of(self.model, in_blocks=True), dict[str, float]()
        for unit in units:
            choices = choices_for(unit, offer.plain())
            unit.candidates = [Candidate(choice, choice.scheme.stored_bits(unit.shape), 0.0) for choice in choices]
        units = [unit for unit in units if unit.candidates]
        if "bytes" in self.limits:
            smallest = [min(unit.candidates, key=lambda candidate: candidate.bits).choice for unit in units]
            source = self.settings.calibration
            marks = MARK_BYTES * source.windows * source.length
            least["bytes"] = quantize(self.model, Recipe(tuple(smallest))).size_bytes() + marks
        if {"ram", "joules"} & set(self.limits):
            caches = dict.fromkeys(TYPES, 0.0)
            costs = Costs(self.model, units, self._running(self.settings.threads or 1), {"int8": 0.0}, caches=caches)
            least |= {quantity: costs.least(quantity) for quantity in ("ram", "joules")}
        beyond = {quantity: value for quantity, value in least.items() if self.limits.get(quantity, np.inf) < value}
        if beyond:
            said = in_users_units({name: value * (REASONS if name == "bytes" else 1) for name, value in beyond.items()})
            raise BudgetError(f"no choice of schemes meets the budget; the nearest that can be met: {said}")

    def _running(self, threads: int) -> Running:
        return Running(min(self.settings.context, self.model.architecture.context_length), threads)

    def _read_texts(self, marks: Marks) -> None:
        """Those for the proof and for comparing plans. `marks` are of what the plan and calibration see."""
        if self.settings.verify and isinstance(self.settings.task, FileFigure):
            self.settings.task.require_unseen(self.model, marks)
        found = held_out(self.model, self.settings, marks, self.watch) if self.settings.verify else HeldOut()
        self.proof, self.climbing = found.proof, found.climbing

    def _devices(self, stored: Mapping[bool, Sequence[Scheme]]) -> dict[str, DeviceCosts]:
        """Of each kind of activations. `stored`: turned or not -> schemes."""
        here = is_timed_here(self.settings, self.budget)
        return devices(self.settings, self.model.architecture, stored, self.watch, here)

    def _task(self) -> Task | None:
        """The task, asked of the model itself only once."""
        task = self.settings.task
        if task is None:
            return None
        with self.watch("asking the model itself"):
            expected = task(self.model)
        return lambda model: expected if model is self.model else task(model)

    def _noises(self) -> dict[str, float]:
        """What each kind of activations adds; of int8, on the model at 8 bits a weight. 16 bits add less than 1e-5 nats."""
        noises = dict.fromkeys(self.settings.activations, 0.0)
        if self.settings.verify and "int8" in noises:
            with self.watch("measuring what rounded activations cost"):
                eight = writer_of(self.model)
                losses = {kind: _mean(measure(eight, self.model, self.seen, kind, None)) for kind in ("int8", "fp32")}
            noises["int8"] = max(0.0, losses["int8"] - losses["fp32"])
        return noises

    def _cache_losses(self) -> dict[str, float]:
        """What each type of KV cache adds, on the same model; without a proof, what docs/planning.md says of SmolLM2."""
        if not self.settings.verify:
            return dict(zip(TYPES, ESTIMATED_CACHE_LOSSES, strict=True))
        eight, found = writer_of(self.model), {}
        with self.watch("measuring what narrower caches cost"):
            for kind in TYPES:
                engine = Engine.load(eight, context=max(map(len, self.seen)), activations="int8", kv_cache=kind)
                states = (engine.hidden(window[:-1]) for window in self.seen)
                found[kind] = _mean(measure(eight, self.model, self.seen, states, None))
        return cache_losses(found)

    def _solved(self) -> list[int]:
        """The best choice whose files, to the byte, are within the limit, and whose mix of schemes is as fast as it must be."""
        mixes = 0
        while True:
            try:
                chosen = self.costs.choose(self.budget.wanted, self.limits)
            except BudgetError as fault:
                raise BudgetError(f"{fault}; the nearest that can be met: {in_users_units(fault.nearest)}") from fault
            beyond = self._made(chosen).size_bytes() + self._unread_marks() - self.costs.sums(chosen)["bytes"]
            self.costs.fixed["bytes"] += beyond  # the files hold a header, names and a tokenizer, too
            if "bytes" in self.limits and self.costs.sums(chosen)["bytes"] > self.limits["bytes"]:
                continue
            if "seconds" not in self.limits or mixes == ROUNDS or self._paced(chosen) is None:
                return chosen
            if self.costs.sums(chosen)["seconds"] <= self.limits["seconds"]:
                return chosen
            mixes += 1

    def _paced(self, chosen: list[int]) -> Mix | None:
        """A stand-in of the choice, timed on this machine, by which its seconds are foretold from now on."""
        device = self.costs.device(chosen)
        if device is None or self.settings.device is not None:
            return None
        if self.timed is None or self.timed[0] != chosen:
            parts = zip(self.costs.units, chosen, strict=False)
            stand_in = MixedStandIn(self.model, {unit.name: unit.candidates[index].choice for unit, index in parts})
            depth = min(DEPTH, self.model.architecture.context_length // 2)
            with self.watch("timing the mix of schemes"):
                mix = Mix.timed(device, stand_in, self.costs.activations(chosen), depth)
            if mix is None:
                return None
            self.timed = chosen, mix
            sums = self.costs.sums(chosen)["seconds"]
            self.costs.scale["seconds"] = self.costs.scale.get("seconds", 1.0) * mix.seconds / sums
        return self.timed[1]

    def _unread_marks(self) -> float:
        """Bytes of the manifest for calibration text that `quantize` will read and an estimate has not, or somewhat more."""
        source, read = self.settings.calibration, source_of(self.settings)
        return MARK_BYTES * (source.windows * source.length - read.windows * read.length)

    def _made(self, chosen: Sequence[int]) -> QuantizedModel:
        return quantize(self.model, self._recipe(chosen), source_of(self.settings))

    def _recipe(self, chosen: Sequence[int]) -> Recipe:
        least = self.budget.wanted == "ram"  # then the caches' switches, too, keep to what the plan is foretold to take
        runtime = self.costs.runtime(chosen, self.costs.sums(chosen)["ram"] if least else self.limits.get("ram", np.inf))
        return recipe_of(self.costs.units, chosen[: len(self.costs.units)], self.costs.factors(), runtime)

    def _tried(self, chosen: list[int], what: str) -> tuple[dict[str, float], Trial]:
        """What was foretold of a choice, and what was measured."""
        mix = self._paced(chosen)
        foretold = self.costs.sums(chosen)
        trial = tried(self._made(chosen), self.held, mix, what, self.watch)
        if self.settings.device is not None:  # this machine's speed and energy say nothing of that one's
            for quantity in ("seconds", "prefill", "joules"):
                trial.measured.pop(quantity, None)
        return foretold, trial

    def _plan(self, chosen: list[int], foretold: dict[str, float], trial: Trial | None) -> Plan:
        costs, blind = self.costs, _without_loss_added(self.costs.untaught().sums(chosen))
        mix = self.timed[1] if self.timed is not None and self.timed[0] == chosen else None
        return Plan(
            self._recipe(chosen),
            self.budget,
            tuple(costs.units),
            tuple(chosen[: len(costs.units)]),
            blind,
            blind if mix is None else blind | {"seconds": mix.now, "prefill": mix.prompt},
            _without_loss_added(foretold),
            {} if trial is None else trial.measured,
            {} if trial is None else trial.intervals,
            costs.scale.get("divergence", 1.0),
            tuple(costs.weights),
            costs.activations(chosen),
            costs.noises[costs.activations(chosen)],
            costs.device(chosen),
            drop=None if trial is None else trial.drop,
        )


def _without_loss_added(sums: dict[str, float]) -> dict[str, float]:
    """Which is foretold as the divergence."""
    return {quantity: value for quantity, value in sums.items() if quantity != "loss_added"}


def _mean(scores: Iterator[Scores]) -> float:
    return float(joined(scores).kl.mean())
