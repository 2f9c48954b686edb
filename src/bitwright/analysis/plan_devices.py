"""What a plan's candidates take on the machine that is planned for: measured here, or read from another machine's file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bitwright.allocation.budget import Budget
from bitwright.allocation.device import DeviceCosts
from bitwright.analysis.plan_types import Settings, asks_for_speed
from bitwright.calibration.text import Watch
from bitwright.core import Scheme
from bitwright.models.architecture import Architecture

TIMED_AT_ONCE = 16  # schemes, whose stand-ins memory holds together


def is_timed_here(settings: Settings, budget: Budget) -> bool:
    """Whether this machine's speed matters to a plan."""
    return settings.verify or asks_for_speed(budget)


def devices(
    settings: Settings, architecture: Architecture, stored: Mapping[bool, Sequence[Scheme]], watch: Watch, here: bool
) -> dict[str, DeviceCosts]:
    """Costs for each kind of activations; none where no other machine is planned for and this one's speed does not matter
    (`here`). `stored`: turned or not -> schemes. Raises `CostError` for a file that lacks something.
    """
    asked = [
        (kind, turned, schemes[begin : begin + TIMED_AT_ONCE])
        for kind in settings.activations
        for turned, schemes in stored.items()
        for begin in range(0, len(schemes), TIMED_AT_ONCE)
    ]
    found = dict[str, DeviceCosts]()
    if settings.device is not None:
        for kind, turned, schemes in asked:
            found[kind] = DeviceCosts.read(settings.device, architecture, schemes, turned, kind)
        return found
    if not here:
        return {}
    with watch("measuring this device") as progress:
        for number, (kind, turned, schemes) in enumerate(asked):

            def report(done: int, total: int, before: int = number) -> None:
                progress(before * total + done, len(asked) * total)

            threads = found[kind].threads if kind in found else settings.threads
            found[kind] = DeviceCosts.measured(architecture, schemes, threads, report, turned, kind)
    return found
