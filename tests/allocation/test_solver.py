"""The integer program finds what trying everything finds, and says how far an impossible budget is off."""

from __future__ import annotations

import os
from itertools import product

import numpy as np
import pytest

pytest.importorskip("scipy", exc_type=ImportError)

import scipy.optimize

from bitwright.allocation.solver import choose, totals
from bitwright.errors import BudgetError


def random_costs(seed: int, units: int = 5, candidates: int = 4) -> dict[str, list[np.ndarray]]:
    random = np.random.default_rng(seed)
    return {quantity: [random.uniform(1, 10, candidates) for _ in range(units)] for quantity in ("bytes", "loss", "seconds")}


@pytest.mark.parametrize("seed", range(20))
def test_the_best_of_all_choices_is_found(seed: int) -> None:
    costs, fixed = random_costs(seed), {"bytes": 3.0}
    limits = {"bytes": 26.0, "seconds": 27.0}
    sums = [totals(costs, fixed, chosen) for chosen in product(range(4), repeat=5)]
    possible = [each["loss"] for each in sums if all(each[quantity] <= limit for quantity, limit in limits.items())]
    found = totals(costs, fixed, choose(costs, fixed, "loss", limits))
    assert all(found[quantity] <= limit * (1 + 1e-6) for quantity, limit in limits.items())
    assert found["loss"] <= min(possible) * (1 + 1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_an_impossible_budget_names_the_nearest(seed: int) -> None:
    costs, limits = random_costs(seed), {"bytes": 6.0, "loss": 6.0}
    with pytest.raises(BudgetError) as caught:
        choose(costs, {}, "seconds", limits)
    nearest = caught.value.nearest
    reached = totals(costs, {}, choose(costs, {}, "seconds", nearest))  # can be met
    assert all(reached[quantity] <= limit * (1 + 1e-6) for quantity, limit in nearest.items())
    sums = [totals(costs, {}, chosen) for chosen in product(range(4), repeat=5)]
    best = min(max(each[quantity] / limit for quantity, limit in limits.items()) for each in sums)
    assert max(nearest[quantity] / limit for quantity, limit in limits.items()) == pytest.approx(best, rel=1e-4)


def test_nothing_is_written_where_results_are_expected(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """HiGHS has been seen to write to descriptor 1 itself."""
    real = scipy.optimize.milp

    def talking(*arguments: object, **options: object) -> object:
        os.write(1, b"a remark\n")
        return real(*arguments, **options)

    monkeypatch.setattr("scipy.optimize.milp", talking)
    costs = {"bytes": [np.array([1.0, 2.0])], "divergence": [np.array([2.0, 1.0])]}
    assert choose(costs, {}, "divergence", {"bytes": 2.0}) == [1]
    print("a result")
    assert capfd.readouterr().out == "a result\n"
