"""One candidate for each unit, so that a sum is least and other sums stay within limits: a small integer program.

    minimise sum_i c_i[x_i]   subject to   fixed_q + sum_i a_qi[x_i] <= limit_q for every limited quantity q

All quantities (bytes, seconds, divergence, memory, joules) are sums over tensors, so one program serves every mix of them. It
is a multiple-choice knapsack, solved by HiGHS (Huangfu and Hall 2018) through scipy to within GAP of the optimum. Where no
choice meets all limits, a second program finds the smallest share by which all of them would have to grow together.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bitwright.errors import BudgetError

Doubles = npt.NDArray[np.float64]

GAP = 1e-4
SECONDS = 30.0  # after which the best so far is taken
SLACK = 1e-9  # of a limit, that rounding may cost


def choose(
    costs: Mapping[str, Sequence[Doubles]], fixed: Mapping[str, float], objective: str, limits: Mapping[str, float]
) -> list[int]:
    """The chosen candidate of each unit.

    `costs[quantity][unit]` holds a number for each of the unit's candidates; `fixed[quantity]` is added to the sum. Raises
    `BudgetError` where limits cannot be met; its `nearest` says what could be.
    """
    found = _solve(costs, fixed, objective, limits, grow=False)
    if found is not None:
        return found
    relaxed = _solve(costs, fixed, objective, limits, grow=True)
    reached = totals(costs, fixed, relaxed) if relaxed is not None else {}
    nearest = {quantity: max(limits[quantity], reached.get(quantity, np.inf)) for quantity in limits}
    raise BudgetError("no choice of schemes meets the budget", nearest)


def totals(costs: Mapping[str, Sequence[Doubles]], fixed: Mapping[str, float], chosen: Sequence[int]) -> dict[str, float]:
    """Every quantity's sum for a choice."""
    return {
        quantity: fixed.get(quantity, 0.0) + float(sum(column[j] for column, j in zip(columns, chosen, strict=True)))
        for quantity, columns in costs.items()
    }


def _solve(
    costs: Mapping[str, Sequence[Doubles]],
    fixed: Mapping[str, float],
    objective: str,
    limits: Mapping[str, float],
    grow: bool,
) -> list[int] | None:
    """The choice, or None where there is none. With `grow` one more variable stretches all limits alike and is minimised."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    sizes = [len(column) for column in costs[objective]]
    count, ends = sum(sizes), np.cumsum(sizes)
    unit_of = np.repeat(np.arange(len(sizes)), sizes)
    one_each = csr_array((np.ones(count), (unit_of, np.arange(count))), shape=(len(sizes), count + grow))
    constraints = [LinearConstraint(one_each, 1, 1)]
    for quantity, limit in limits.items():
        scale = abs(limit) or 1.0
        row = np.append(np.concatenate(costs[quantity]) / scale, [-1.0] * grow)
        constraints.append(LinearConstraint(row[None, :], -np.inf, (limit - fixed.get(quantity, 0.0)) / scale + SLACK))
    wanted = np.concatenate(costs[objective])
    wanted = wanted / (np.abs(wanted).max() or 1.0)
    weights = np.append(1e-6 * wanted / count, 1.0) if grow else wanted
    with _silenced():
        result = milp(
            weights,
            integrality=np.append(np.ones(count), [0] * grow),
            bounds=Bounds(0, np.append(np.ones(count), [np.inf] * grow)),
            constraints=constraints,
            options={"mip_rel_gap": GAP, "time_limit": SECONDS},
        )
    if result.x is None:
        return None
    parts = np.split(result.x[:count], ends[:-1])
    return [int(part.argmax()) for part in parts]


@contextmanager
def _silenced() -> Iterator[None]:
    """HiGHS writes remarks to the process's standard output, whatever it is told; there results are expected."""
    sys.stdout.flush()
    with Path(os.devnull).open("wb") as nothing:
        kept = os.dup(1)
        os.dup2(nothing.fileno(), 1)
        try:
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)
