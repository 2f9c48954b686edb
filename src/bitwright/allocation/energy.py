"""Energy of a token: read from the processor's own counters where the system gives them, else an estimate.

    RAPL      joules that the processor packages (and their memory, where it is counted) took while tokens were decoded,
              idle power and other programs included: Linux' powercap, Documentation/power/powercap/powercap.rst
    estimate  bytes read x energy of a byte from DRAM + multiply-adds x energy of one. Nothing else is in it: no caches, no
              instruction decoding, no idle power. It compares schemes with each other, not machines.

Constants are those of 45 nm at 0.9 V: Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014,
10.1109/ISSCC.2014.6757323. Graphics cards' counters (NVML) are not read: the engine runs on processors alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
DRAM_BYTE = 1.3e-9 / 8  # joules: 1.3 to 2.6 nJ for 64 bits, of which the lower end
INT8_MULTIPLY_ADD = 0.2e-12 + 0.1e-12  # joules: an int8 product added to an int32 sum
FP32_MULTIPLY_ADD = 3.7e-12 + 0.9e-12
ESTIMATE, RAPL = "estimate", "RAPL"


@dataclass(frozen=True)
class Energy:
    """`source` is "RAPL" or "estimate"."""

    joules: float
    source: str

    def __str__(self) -> str:
        return f"{1e3 * self.joules:.3g} mJ" + (f" ({self.source})" if self.source == ESTIMATE else "")


def estimate(bytes_read: float, multiply_adds: float, integer: bool = True) -> Energy:
    """Of a token that takes so much; `integer`: weights are multiplied as int8, not as floats."""
    each = INT8_MULTIPLY_ADD if integer else FP32_MULTIPLY_ADD
    return Energy(bytes_read * DRAM_BYTE + multiply_adds * each, ESTIMATE)


@dataclass(frozen=True)
class Counter:
    """One RAPL zone: microjoules that start again at 0 beyond `span`."""

    path: Path
    span: int

    def read(self) -> int:
        return int(self.path.read_text("ascii"))


@dataclass(frozen=True)
class Meter:
    """The packages' counters, and those of memory beside them."""

    counters: tuple[Counter, ...]

    @classmethod
    def of_this_machine(cls, root: Path = POWERCAP) -> Meter | None:
        """None where there are none, or where they may not be read."""
        counters = (_counter(zone) for zone in sorted(root.glob("intel-rapl:*")))
        found = tuple(counter for counter in counters if counter is not None)
        return cls(found) if found else None

    def read(self) -> tuple[int, ...]:
        return tuple(counter.read() for counter in self.counters)

    def joules(self, before: Sequence[int], after: Sequence[int]) -> float:
        """Between two readings that are less than one round apart."""
        rounds = ((end - begin) % counter.span for counter, begin, end in zip(self.counters, before, after, strict=True))
        return sum(rounds) / 1e6


def _counter(zone: Path) -> Counter | None:
    """Packages and memory alone: cores are part of a package, and `psys` counts the packages again."""
    try:
        name = (zone / "name").read_text("ascii").strip()
        if not name.startswith(("package", "dram")):
            return None
        counter = Counter(zone / "energy_uj", int((zone / "max_energy_range_uj").read_text("ascii")) + 1)
        return counter if counter.read() >= 0 else None
    except (OSError, ValueError):  # readable by root alone since CVE-2020-8694
        return None
