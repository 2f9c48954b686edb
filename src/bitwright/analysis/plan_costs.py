"""What every candidate of every tensor costs in every quantity, with what has been learnt from plans that were made.

    quantity of a plan = scale * (fixed + sum over units of cost)          losses: fixed + scale * sum of weight * cost

Losses are the divergence, and what is added to the loss on a text: of text that the model itself writes the two are the same in
the mean, so both are foretold alike, and each is corrected by what was measured of it.

`fixed` is what all plans have alike: vectors, attention and norms, buffers, the loss of rounded activations. `scale` and `weight`
are 1 until a plan was measured, but for the loss: what is rounded by a model's own text on that text is foretold too low, and
plans lose more than the sum (docs/planning.md). Where memory is limited or made least, the KV cache is one more unit, whose
candidates are the narrowest types that it may come to (allocation/cache_plan.py). Energy is that of a token at the depth at which
speed is told, with the cache at its widest, and of the engine's own bytes, as `bitwright bench` estimates it. Activations have a
kind, the same for all layers, on which seconds depend: a choice is found for each, and the best is taken.

A choice is a list of indices: of each unit's candidates, of the caches where they are planned, and of the kinds of activations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from bitwright.allocation.budget import PROMPT
from bitwright.allocation.cache_plan import SPAN, TYPES, cache_settings
from bitwright.allocation.candidates import Unit
from bitwright.allocation.device import DeviceCosts
from bitwright.allocation.energy import estimate
from bitwright.allocation.memory import Running, buffer_bytes, cache_bytes, matrix_bytes, process_bytes
from bitwright.allocation.solver import Doubles, choose, totals
from bitwright.analysis.trial import DEPTH
from bitwright.analysis.work import cache_bytes_read, token_multiply_adds, weights_multiplied
from bitwright.errors import BudgetError
from bitwright.models.base import LanguageModel
from bitwright.runtime import RuntimeSetting

LOSSES = ("divergence", "loss_added")
BEYOND_SUM = 1.3  # times the sum of what its parts are foretold to lose, that a plan loses


@dataclass
class Costs:
    """`noises` is the loss of each kind of activations, `devices` what each takes on the machine, if anything asks for it;
    `caches` the loss of each type of cache, if planned. `table[quantity][unit]` holds a number for each candidate.
    """

    model: LanguageModel
    units: Sequence[Unit]
    running: Running
    noises: Mapping[str, float]
    devices: Mapping[str, DeviceCosts] = field(default_factory=dict)
    caches: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.weights = [1.0] * len(self.units)
        self.scale = dict.fromkeys(LOSSES, BEYOND_SUM)
        self.fixed = self._fixed()
        self.table = self._table(self._of_unit)
        self.timed = {kind: self._table(partial(self._time_of_unit, costs)) for kind, costs in self.devices.items()}

    def choose(self, objective: str, limits: Mapping[str, float]) -> list[int]:
        """The best choice. Raises `BudgetError`."""
        found: list[tuple[float, list[int]]] = []
        refusals: list[BudgetError] = []
        for number in range(len(self.noises)):
            table, fixed = self.corrected(number)
            try:
                chosen = choose(table, fixed, objective, limits)
            except BudgetError as fault:
                refusals.append(fault)
                continue
            found.append((totals(table, fixed, chosen)[objective], [*chosen, number]))
        if not found:
            raise min(refusals, key=lambda fault: max(fault.nearest[name] / limits[name] for name in limits))
        return min(found, key=lambda each: each[0])[1]

    def untaught(self) -> Costs:
        """The same, as if no plan had been measured; files are as long as they were found to be, which no plan is made for."""
        found = copy(self)
        found.weights, found.scale = [1.0] * len(self.units), dict.fromkeys(LOSSES, BEYOND_SUM)
        return found

    def least(self, quantity: str) -> float:
        """The smallest sum that any choice has of what does not depend on the machine's speed."""
        return self.fixed.get(quantity, 0.0) + float(sum(column.min() for column in self.table[quantity]))

    def sums(self, chosen: Sequence[int]) -> dict[str, float]:
        """Every quantity of a choice."""
        table, fixed = self.corrected(chosen[-1])
        return totals(table, fixed, chosen[:-1])

    def activations(self, chosen: Sequence[int]) -> str:
        return list(self.noises)[chosen[-1]]

    def device(self, chosen: Sequence[int]) -> DeviceCosts | None:
        return self.devices.get(self.activations(chosen))

    def corrected(self, number: int) -> tuple[dict[str, list[Doubles]], dict[str, float]]:
        """Costs and constants of a kind of activations, with what has been learnt."""
        kind = list(self.noises)[number]
        constants = self.fixed | self._time_of_rest(self.devices.get(kind))
        table, fixed = {}, {}
        for quantity, columns in (self.table | self.timed.get(kind, {})).items():
            scale = self.scale.get(quantity, 1.0)
            table[quantity] = [scale * column for column in columns]
            fixed[quantity] = scale * constants.get(quantity, 0.0)
        for loss in LOSSES:
            factors = self.factors(loss)
            known = [factor * column for factor, column in zip(factors, self.table["divergence"], strict=False)]
            table[loss] = known + self.table["divergence"][len(factors) :]
            fixed[loss] = self.noises[kind]
        return table, fixed

    def factors(self, loss: str = "divergence") -> list[float]:
        """By how much to multiply the foretold loss of each unit."""
        return [self.scale[loss] * weight for weight in self.weights]

    def runtime(self, chosen: Sequence[int], limit: float) -> tuple[RuntimeSetting, ...]:
        """Settings of the engine that keep a plan within `limit` bytes of memory."""
        activations = self.activations(chosen)
        if not self.caches:
            return () if activations == "int8" else (RuntimeSetting(activations=activations),)
        last = list(self.caches)[chosen[-2]]
        rest = self.sums(chosen)["ram"] - self.scale.get("ram", 1.0) * self.cache_size(last, self.running.context)
        return cache_settings(last, limit - rest, self.running.context, self.cache_size, activations)

    def cache_size(self, kind: str, positions: int) -> int:
        """Bytes of so many positions of the KV cache."""
        return cache_bytes(self.model.architecture, Running(positions, self.running.threads, kind))

    def _fixed(self) -> dict[str, float]:
        chosen = {unit.matrix for unit in self.units}
        architecture = self.model.architecture
        vectors = sum(self.model.stored_bits(name) for name in self.model.names() if name not in chosen) / 8
        cache = 0 if self.caches else cache_bytes(architecture, self.running)
        ram = process_bytes(self.model.path) + buffer_bytes(architecture, self.running) + cache + vectors
        read = cache_bytes_read(architecture, self.cache_size(TYPES[0], SPAN) / SPAN, DEPTH)
        attended = token_multiply_adds(architecture, DEPTH) - weights_multiplied(architecture)
        return {"bytes": vectors, "ram": float(ram), "joules": estimate(read, attended).joules}

    def _time_of_rest(self, device: DeviceCosts | None) -> dict[str, float]:
        if device is None:
            return {}
        other = device.other_seconds(self.model.architecture, DEPTH)
        return {"seconds": other, "prefill": PROMPT * other}

    def _table(self, of_unit: Callable[[Unit], dict[str, list[float]]]) -> dict[str, list[Doubles]]:
        table: dict[str, list[Doubles]] = {}
        for unit in self.units:
            for quantity, values in of_unit(unit).items():
                table.setdefault(quantity, []).append(np.array(values, np.float64))
        if self.caches:
            for quantity in table:
                table[quantity].append(self._of_cache(quantity))
        return table

    def _of_unit(self, unit: Unit) -> dict[str, list[float]]:
        size = float(np.prod(unit.shape))
        costs: dict[str, list[float]] = {"bytes": [], "divergence": [], "joules": [], "ram": []}
        for candidate in unit.candidates:
            stored = candidate.bits / 8
            read = matrix_bytes(candidate.choice.scheme, unit.shape, candidate.choice.rotate)
            costs["bytes"].append(stored)
            costs["divergence"].append(candidate.divergence)
            costs["joules"].append(0.0 if unit.looked_up else estimate(read, size, integer=read < 2 * size).joules)
            costs["ram"].append(stored + read)
        return costs

    def _time_of_unit(self, device: DeviceCosts, unit: Unit) -> dict[str, list[float]]:
        costs: dict[str, list[float]] = {"seconds": [], "prefill": []}
        share = 0.0 if unit.looked_up else unit.share
        for candidate in unit.candidates:
            scheme, rotated = candidate.choice.scheme, candidate.choice.rotate
            costs["seconds"].append(share * device.decode_seconds(scheme, unit.whole, rotated) if share else 0.0)
            costs["prefill"].append(share * device.prefill_seconds(scheme, unit.whole, PROMPT, rotated) if share else 0.0)
        return costs

    def _of_cache(self, quantity: str) -> Doubles:
        if quantity == "ram":
            return np.array([self.cache_size(kind, self.running.context) for kind in self.caches], np.float64)
        return np.array([loss if quantity == "divergence" else 0.0 for loss in self.caches.values()], np.float64)


def cache_losses(measured: Mapping[str, float]) -> dict[str, float]:
    """What each type costs beyond the widest, from the losses of one model with each of them."""
    return {kind: max(0.0, measured[kind] - measured[TYPES[0]]) for kind in TYPES}
