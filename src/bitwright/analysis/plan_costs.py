"""What every candidate of every tensor costs in every quantity, with what has been learnt from plans that were made.

    quantity of a plan = scale * (fixed + sum over units of cost)          divergence: fixed + scale * sum of weight * cost

`fixed` is what all plans have alike: vectors, attention and norms, buffers, the loss of rounded activations. `scale` and `weight`
are 1 until a plan was measured. Where memory is limited the KV cache is one more unit, whose candidates are the narrowest
types that it may come to (allocation/cache_plan.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bitwright.allocation.budget import PROMPT
from bitwright.allocation.cache_plan import TYPES, cache_settings
from bitwright.allocation.candidates import Unit
from bitwright.allocation.device import DeviceCosts
from bitwright.allocation.energy import estimate
from bitwright.allocation.memory import Running, buffer_bytes, cache_bytes, matrix_bytes, process_bytes
from bitwright.allocation.solver import Doubles, choose, totals
from bitwright.analysis.trial import DEPTH
from bitwright.models.base import LanguageModel
from bitwright.runtime import RuntimeSetting


@dataclass
class Costs:
    """`table[quantity][unit]` holds a number for each candidate; `caches` the cost in loss of each type of cache, if planned."""

    model: LanguageModel
    units: Sequence[Unit]
    running: Running
    device: DeviceCosts | None
    caches: Mapping[str, float] = field(default_factory=dict)
    noise: float = 0.0

    def __post_init__(self) -> None:
        self.weights = [1.0] * len(self.units)
        self.scale: dict[str, float] = {}
        self.table: dict[str, list[Doubles]] = {}
        self.fixed = self._fixed()
        for unit in self.units:
            for quantity, values in self._of_unit(unit).items():
                self.table.setdefault(quantity, []).append(np.array(values, np.float64))
        if self.caches:
            for quantity in self.table:
                self.table[quantity].append(self._of_cache(quantity))

    def choose(self, objective: str, limits: Mapping[str, float]) -> list[int]:
        """The best choice: an index for each unit, and for the cache where it is planned. Raises `BudgetError`."""
        table, fixed = self.corrected()
        return choose(table, fixed, objective, limits)

    def sums(self, chosen: Sequence[int]) -> dict[str, float]:
        """Every quantity of a choice."""
        table, fixed = self.corrected()
        return totals(table, fixed, chosen)

    def corrected(self) -> tuple[dict[str, list[Doubles]], dict[str, float]]:
        """Costs and constants with what has been learnt."""
        table, fixed = {}, {}
        for quantity, columns in self.table.items():
            scale = self.scale.get(quantity, 1.0)
            table[quantity] = [scale * column for column in columns]
            fixed[quantity] = scale * self.fixed.get(quantity, 0.0)
        factors = self.factors()
        known = [factor * column for factor, column in zip(factors, self.table["divergence"], strict=False)]
        table["divergence"] = known + self.table["divergence"][len(factors) :]
        return table, fixed | {"divergence": self.noise}

    def factors(self) -> list[float]:
        """By how much to multiply the foretold loss of each unit."""
        return [self.scale.get("divergence", 1.0) * weight for weight in self.weights]

    def runtime(self, chosen: Sequence[int], limit: float) -> tuple[RuntimeSetting, ...]:
        """Settings of the engine that keep a plan within `limit` bytes of memory."""
        if not self.caches:
            return ()
        last = list(self.caches)[chosen[-1]]
        rest = self.sums(chosen)["ram"] - self.scale.get("ram", 1.0) * self.cache_size(last, self.running.context)
        return cache_settings(last, limit - rest, self.running.context, self.cache_size)

    def cache_size(self, kind: str, positions: int) -> int:
        """Bytes of so many positions of the KV cache."""
        return cache_bytes(self.model.architecture, Running(positions, self.running.threads, kind))

    def _fixed(self) -> dict[str, float]:
        chosen = {unit.name for unit in self.units}
        architecture = self.model.architecture
        vectors = sum(self.model.stored_bits(name) for name in self.model.names() if name not in chosen) / 8
        cache = 0 if self.caches else cache_bytes(architecture, self.running)
        ram = process_bytes(self.model.path) + buffer_bytes(architecture, self.running) + cache + vectors
        fixed = {"bytes": vectors, "ram": float(ram)}
        if self.device is not None:
            other = self.device.other_seconds(architecture, DEPTH)
            fixed |= {"seconds": other, "prefill": PROMPT * other}
        return fixed

    def _of_unit(self, unit: Unit) -> dict[str, list[float]]:
        size = float(np.prod(unit.shape))
        costs: dict[str, list[float]] = {"bytes": [], "divergence": [], "joules": [], "ram": []}
        costs |= {} if self.device is None else {"seconds": [], "prefill": []}
        for candidate in unit.candidates:
            scheme, rotated, stored = candidate.choice.scheme, candidate.choice.rotate, candidate.bits / 8
            costs["bytes"].append(stored)
            costs["divergence"].append(candidate.divergence)
            costs["joules"].append(0.0 if unit.looked_up else estimate(stored, size).joules)
            costs["ram"].append(stored + matrix_bytes(scheme, unit.shape, rotated))
            if self.device is not None:
                one, many = 0.0, 0.0
                if not unit.looked_up:
                    one = self.device.decode_seconds(scheme, unit.shape, rotated)
                    many = self.device.prefill_seconds(scheme, unit.shape, PROMPT, rotated)
                costs["seconds"].append(one)
                costs["prefill"].append(many)
        return costs

    def _of_cache(self, quantity: str) -> Doubles:
        if quantity == "ram":
            return np.array([self.cache_size(kind, self.running.context) for kind in self.caches], np.float64)
        return np.array([loss if quantity == "divergence" else 0.0 for loss in self.caches.values()], np.float64)


def cache_losses(measured: Mapping[str, float]) -> dict[str, float]:
    """What each type costs beyond the widest, from the losses of one model with each of them."""
    return {kind: max(0.0, measured[kind] - measured[TYPES[0]]) for kind in TYPES}
