"""Budgets are read in the user's units, and what cannot be one is named in one line."""

from __future__ import annotations

import math

import pytest

from bitwright.allocation.budget import Budget, in_users_units, parse_bytes, parse_number, parse_share
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
    limits = Budget(max_size=10, max_kl=0.5, max_drop=0.1, min_speed=50, min_prefill=256).limits()
    assert limits == {"bytes": 10, "divergence": pytest.approx(math.log(1.1)), "seconds": 0.02, "prefill": 2.0}
    assert in_users_units({"bytes": 1.25e6, "seconds": 0.02}) == "--max-size 1.3MB --min-speed 50.0"


def test_what_is_made_least() -> None:
    assert Budget(max_size=10).wanted == "divergence"
    assert Budget(max_kl=0.1).wanted == "bytes"
    assert Budget(max_kl=0.1, objective="speed").wanted == "seconds"


@pytest.mark.parametrize("fields", [{}, {"max_size": 0}, {"max_kl": float("inf")}, {"max_size": 5, "objective": "beauty"}])
def test_no_budget(fields: dict[str, float]) -> None:
    with pytest.raises(BudgetError):
        Budget(**fields)  # type: ignore[arg-type]
