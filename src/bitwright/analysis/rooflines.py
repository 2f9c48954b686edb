"""Where a decoded token's time and bytes go: each part of its work under what this machine's memory and arithmetic allow.

A matrix's bytes are read once a token, and each of its weights is one multiply-add, two operations; attention reads the keys and
values of all positions seen (analysis/work.py). Seconds are the engine's own: of a plan's candidates as they were timed
(allocation/device.py), of a model that is here by the stages of its tokens. S. Williams, A. Waterman, D. Patterson: Roofline,
Communications of the ACM 52(4), 2009.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitwright.allocation.cache_plan import SPAN
from bitwright.allocation.device import BURST, STAGES, DeviceCosts, machine_line, stage_times
from bitwright.allocation.memory import Running, cache_bytes
from bitwright.allocation.stand_in import role_shapes
from bitwright.analysis.ceilings import Ceilings
from bitwright.analysis.plan_types import Plan
from bitwright.analysis.trial import DEPTH
from bitwright.analysis.work import cache_bytes_read, token_multiply_adds, weights_multiplied
from bitwright.engine import Engine
from bitwright.models.architecture import Architecture
from bitwright.quantization import QuantizedModel
from bitwright.runtime import setting_of

ATTENTION = "attention over the cache"


@dataclass(frozen=True)
class Work:
    """What one part of the model takes of a token."""

    kind: str
    bytes: float
    operations: float
    seconds: float


def of_plan(plan: Plan, costs: DeviceCosts, architecture: Architecture, ceilings: Ceilings) -> dict[str, Any] | None:
    """Of a plan that knows its speed, as a report's document has it; None where the machine has no peak to compare with."""
    works = []
    for unit, candidate in plan.candidates():
        if not unit.looked_up:
            seconds = unit.share * costs.decode_seconds(candidate.choice.scheme, unit.whole, candidate.choice.rotate)
            works.append(Work(unit.kind, candidate.bits / 8, 2 * float(np.prod(unit.shape)), seconds))
    position = cache_bytes(architecture, Running(SPAN, costs.threads)) / SPAN
    works.append(_attention(architecture, position, DEPTH, costs.attention_seconds(architecture, DEPTH)))
    return roofline(works, plan.foretold["seconds"], costs.threads, ceilings)


def of_model(model: QuantizedModel, ceilings: Ceilings) -> tuple[dict[str, Any], str] | None:
    """Of a quantized model, with the machine in words; None where the machine has no peak to compare with.

    The model is loaded and timed now, with the activations and the cache that its recipe comes to: matrices that are multiplied
    together are one part.
    """
    setting, architecture = setting_of(model), model.architecture
    context = min(2 * DEPTH, architecture.context_length)
    engine = Engine.load(model, context=context, activations=setting.activations, kv_cache=setting.kv_cache)
    depth = min(DEPTH, context // 2)
    seconds = stage_times(engine, depth, setting.kv_cache)
    works = [_stage(model, roles, seconds[stage]) for stage, roles in STAGES.items()]
    works.append(_attention(architecture, engine.cache_bytes / context, depth + BURST // 2, seconds["attention"]))
    found = roofline(works, sum(seconds.values()), engine.threads, ceilings)
    return None if found is None else (found, machine_line())


def _stage(model: QuantizedModel, roles: tuple[str, ...], seconds: float) -> Work:
    """The matrices that play one of these roles, in all layers."""
    shapes = role_shapes(model.architecture)
    size = operations = 0.0
    for (role, _), place in model.roles().items():
        if role in roles:
            share = shapes[role][0] / model.shape(place.name)[0]  # of a tensor that keeps several matrices together
            size += share * model.stored_bits(place.name) / 8
            operations += 2 * float(np.prod(shapes[role]))
    return Work("+".join(roles), size, operations, seconds)


def _attention(architecture: Architecture, bytes_a_position: float, positions: int, seconds: float) -> Work:
    """Of a token that is the last of so many."""
    read = cache_bytes_read(architecture, bytes_a_position, positions)
    return Work(ATTENTION, read, 2.0 * (token_multiply_adds(architecture, positions) - weights_multiplied(architecture)), seconds)


def roofline(works: Iterable[Work], seconds: float, threads: int, ceilings: Ceilings) -> dict[str, Any] | None:
    """As a report's document has it, one point a kind. `seconds` are those of the whole token."""
    peak = ceilings.matrix_ops_per_s("int8", threads) or ceilings.matrix_ops_per_s("bf16", threads)
    if peak is None:
        return None
    kinds: dict[str, list[Work]] = {}
    for work in works:
        kinds.setdefault(work.kind, []).append(work)
    points = []
    for kind, parts in kinds.items():
        size, operations, spent = (sum(getattr(part, name) for part in parts) for name in ("bytes", "operations", "seconds"))
        points.append(
            {
                "name": kind,
                "operations_per_byte": operations / size,
                "operations_per_s": operations / spent,
                "seconds_share": spent / seconds,
                "bytes": int(size),
            }
        )
    read = sum(point["bytes"] for point in points)
    return {
        "bandwidth_bytes_per_s": 1e9 * ceilings.read_gb_per_s(read, threads),
        "peak_operations_per_s": peak,
        "points": points,
    }
