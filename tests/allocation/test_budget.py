"""Budgets are read in the user's units, and what cannot be one is named in one line."""

from __future__ import annotations

import math

import pytest

from bitwright.allocation.budget import OBJECTIVES, Budget, in_users_units, parse_bytes, parse_number, parse_share
from bitwright.errors import BudgetError


@pytest.mark.parametrize(("text", "size"), [("80MB", 80_000_000), ("1.5 gb", 1_500_000_000), ("2MiB", 2_097_152), ("123", 123)])
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["80XB", "MB", "-3MB", "1e9", "", "8 0MB"])
def test_no_size(text: str) -> None:
    with pytest.raises(BudgetError, match="write it like"):
        parse_bytes(text)


def test_shares_and_numbers() -> None:
    assert parse_share("0.5%") == pytest.approx(0.005) and parse_share(".02") == 0.02
    assert parse_number("1e-3", "--max-kl") == 0.001
    with pytest.raises(BudgetError, match="0.5%"):
        parse_share("half")
    with pytest.raises(BudgetError, match="--max-kl"):
        parse_number("nan", "--max-kl")


def test_limits_follow_from_the_users_units() -> None:
    budget = Budget(max_size=10, max_kl=0.5, max_drop=0.1, min_speed=50, min_prefill=256)
    assert budget.limits() == {"bytes": 10, "divergence": 0.5, "seconds": 0.02, "prefill": 2.0}
    assert budget.asked() == budget.limits() | {"loss_added": pytest.approx(math.log(1.1))}
    assert in_users_units({"bytes": 1.25e6, "seconds": 0.02}) == "--max-size 1.3MB --min-speed 50.0"
    assert in_users_units({"loss_added": math.log(1.1)}) == "--max-drop 10.1%"  # rounded so that it can be met
    assert in_users_units({"joules": 0.02}) == "--max-energy 0.0201 (an estimate)"


def test_what_is_made_least() -> None:
    assert Budget(max_size=10).wanted == "divergence"
    assert Budget(max_kl=0.1).wanted == "bytes"
    assert {name: Budget(max_drop=0.1, objective=name).wanted for name in OBJECTIVES} == OBJECTIVES


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name != "loss"])
def test_an_objective_needs_a_loss_to_trade_against(objective: str) -> None:
    with pytest.raises(BudgetError, match=f"--objective {objective} needs a limit on the loss.*add --max-kl"):
        Budget(max_size=10, max_ram=10, min_speed=1, objective=objective)
    assert Budget(max_task_drop=0.01, objective=objective).loss_limited
    assert Budget(max_size=10, objective="loss").wanted == "divergence"


@pytest.mark.parametrize("fields", [{}, {"max_size": 0}, {"max_kl": float("inf")}, {"max_size": 5, "objective": "beauty"}])
def test_no_budget(fields: dict[str, float]) -> None:
    with pytest.raises(BudgetError):
        Budget(**fields)  # type: ignore[arg-type]
