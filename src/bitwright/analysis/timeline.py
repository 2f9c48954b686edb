"""How long the rest of a plan will take: one bar for all its phases, each with a forecast that those before it correct.

    left = (1 - s) (time so far + (1 - s) * forecast) + sum of the forecasts of phases to come,   s the share that is done

with each forecast times (seconds taken so far) / (seconds forecast for them): a machine that is slow stays so. A phase that is
under way counts for so much of itself as is done of it, since steps are not all alike. Phases are known by what they are said to
do; where one begins, those foreseen before it were not needed, and one that was not foreseen at all adds nothing to what is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

KNOWN = 0.05  # of a forecast: what took less was known already, and says nothing of the machine
SETTLED = 5.0  # seconds of forecast that must be over before the machine is judged by them
Report = Callable[[str, float, float], None]  # what is being done, seconds since the beginning, seconds in all as now expected


@dataclass
class Timeline:
    """`forecast` holds (phase, seconds) in order; `report` is told at every step. `watch` is what planning takes."""

    forecast: Sequence[tuple[str, float]]
    report: Report
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._left = list(self.forecast)
        self._begin = self.clock()
        self._taken = self._expected = 0.0  # by phases that are over

    @contextmanager
    def watch(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """One phase, as a `Watch`."""
        begin, own = self.clock(), self._next(what)
        self._say(what, 0.0, own, begin)
        yield lambda done, total: self._say(what, done / max(total, 1), own, begin)
        taken = self.clock() - begin
        if taken > KNOWN * own > 0:
            self._taken += taken
            self._expected += own

    def _next(self, what: str) -> float:
        """The forecast of a phase that begins."""
        place = next((number for number, (name, _) in enumerate(self._left) if name == what), None)
        if place is None:
            return 0.0
        own = self._left[place][1]
        del self._left[: place + 1]
        return own

    def _say(self, what: str, share: float, own: float, begin: float) -> None:
        now = self.clock()
        taken = now - begin
        slowness = self._slowness(taken, share, own)
        whole = own * slowness  # of this phase, by its forecast; the further it is, the more its own pace counts
        rest = (1 - share) * (taken + (1 - share) * whole) if share > 0 else max(whole - taken, 0.0)
        left = (rest if own else 0.0) + slowness * sum(seconds for _, seconds in self._left)
        self.report(what, now - self._begin, now - self._begin + left)

    def _slowness(self, taken: float, share: float, own: float) -> float:
        """Seconds taken over seconds forecast, this phase included so far as it is done."""
        counts = share * (taken > KNOWN * share * own > 0)
        expected = self._expected + counts * share * own
        spent = self._taken + counts * taken
        return spent / expected if expected > SETTLED else 1.0
