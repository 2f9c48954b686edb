"""Where a decoded token's time and bytes go: each kind of matrix under what this machine's memory and arithmetic allow.

A matrix's bytes are read once a token and each of its weights is one multiply-add, two operations; seconds are those that the
engine itself was timed to take (allocation/device.py). S. Williams, A. Waterman, D. Patterson: Roofline, Communications of the
ACM 52(4), 2009.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitwright.allocation.device import DeviceCosts
from bitwright.allocation.stand_in import role_shapes
from bitwright.analysis.ceilings import Ceilings
from bitwright.analysis.plan_types import Plan
from bitwright.analysis.trial import DEPTH
from bitwright.quantization import QuantizedModel
from bitwright.runtime import activations_of


@dataclass(frozen=True)
class Work:
    """What one matrix, or a part of it, takes of a token."""

    kind: str
    bytes: float
    operations: float
    seconds: float


def of_plan(plan: Plan, costs: DeviceCosts, ceilings: Ceilings) -> dict[str, Any] | None:
    """Of a plan that knows its speed, as a report's document has it; None where the machine has no peak to compare with."""
    works = []
    for unit, candidate in plan.candidates():
        if not unit.looked_up:
            seconds = unit.share * costs.decode_seconds(candidate.choice.scheme, unit.whole, candidate.choice.rotate)
            works.append(Work(unit.kind, candidate.bits / 8, 2 * float(np.prod(unit.shape)), seconds))
    return roofline(works, plan.foretold["seconds"], costs.threads, ceilings)


def of_model(model: QuantizedModel, ceilings: Ceilings) -> tuple[dict[str, Any], str] | None:
    """Of a quantized model, with the machine in words; None also where this machine was not timed with its shape and schemes.

    Nothing is timed now but what `ceilings` lack.
    """
    costs = DeviceCosts.measured(model.architecture, (), activations=activations_of(model))
    shapes, works = role_shapes(model.architecture), list[Work]()
    for (role, _), part in model.roles().items():
        if role not in shapes:
            continue
        whole = model.shape(part.name)[0]
        share = shapes[role][0] / whole  # of a tensor that keeps several matrices together
        for line in model.lines(part.name):
            rotated, rows = line.rotation > 0, line.shape[0] / whole
            if not costs.knows(line.scheme, rotated):
                return None
            seconds = rows * costs.decode_seconds(line.scheme, shapes[role], rotated)
            works.append(Work(role, share * line.stored_bits / 8, rows * 2 * float(np.prod(shapes[role])), seconds))
    total = sum(work.seconds for work in works) + costs.other_seconds(model.architecture, DEPTH)
    found = roofline(works, total, costs.threads, ceilings)
    return None if found is None else (found, costs.machine)


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
