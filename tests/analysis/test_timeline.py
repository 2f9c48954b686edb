"""The time left that a timeline tells is true within a factor 1.5, on machines that are slower than foreseen too."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bitwright.analysis.timeline import Timeline

PHASES = [("writing", 20.0), ("sensing", 60.0), ("rounding", 30.0), ("measuring", 10.0), ("rounding", 30.0)]


def run(true: list[tuple[str, float]], forecast: list[tuple[str, float]]) -> list[tuple[float, float]]:
    """(seconds truly left, said to be left) at every step of a run on a clock of its own."""
    now, told = [0.0], list[tuple[float, float]]()
    whole = sum(seconds for _, seconds in true)
    line = Timeline(forecast, lambda what, done, total: told.append((whole - done, total - done)), clock=lambda: now[0])
    for what, seconds in true:
        with line.watch(what) as progress:
            for step in range(10):
                now[0] += seconds / 10
                progress(step + 1, 10)
    return told


def worst(told: list[tuple[float, float]], after: Callable[[float], bool]) -> float:
    return max(max(said / true, true / max(said, 1e-9)) for true, said in told if after(true))


def test_a_true_forecast_is_true_throughout() -> None:
    assert worst(run(PHASES, PHASES), lambda left: left > 1) == pytest.approx(1.0)


@pytest.mark.parametrize("slow", [0.3, 3.0])
def test_a_machine_of_another_pace_is_found_out(slow: float) -> None:
    told = run([(what, slow * seconds) for what, seconds in PHASES], PHASES)
    assert worst(told, lambda left: slow < left < slow * 120) < 1.5


def test_phases_that_are_not_needed_are_left_out() -> None:
    told = run(PHASES[1:], PHASES)
    assert worst(told, lambda left: left > 1) == pytest.approx(1.0)


def test_what_was_not_foreseen_adds_nothing() -> None:
    told = run([("surprise", 5.0), *PHASES], PHASES)
    assert told[5][1] == pytest.approx(150.0) and told[-1][1] == pytest.approx(0.0)


def test_what_was_in_a_cache_does_not_make_the_machine_look_fast() -> None:
    told = run([("writing", 0.1), *PHASES[1:]], PHASES)
    assert told[10] == (pytest.approx(130.0), pytest.approx(130.0))
