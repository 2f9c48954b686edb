"""What this machine allows, measured: how fast it reads memory, and how fast its matrix units multiply.

    read bandwidth   the best pass of `threads` threads over as many bytes as the work reads, in huge pages and in the best
                     of several ways: a working set that fits the cache is read faster, and the ceiling must know
    matrix peak      the best pass of the best int8 (or bf16) dot product on registers alone that the instruction set in use
                     has, the machine's best or the one that BITWRIGHT_ISA forces. A multiply-add is two operations.

Measured once for each machine and kept in `ceilings.json` where evaluations are cached too; another processor, another
count of cores or another host makes it invalid. Peaks are kept by instruction, so a forced set has its own. A ceiling taken
while others used the machine is too low, so one that is beaten is measured again, and the highest figure stays.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from bitwright import _native
from bitwright.analysis.reference_cache import HiddenCache
from bitwright.machine import identity, processor_name, read_figures, write_figures

FILE = "ceilings.json"
BANDWIDTH_SECONDS = 0.25  # of measuring, for each thread count
PEAK_SECONDS = 0.1  # for each thread count and type
MEBIBYTE = 1 << 20
LARGEST_WORKING_SET = 1 << 30  # bytes: beyond every cache, more makes no difference
TYPES = ("int8", "bf16")


@dataclass
class Ceilings:
    """Figures by their names, measured when they are first asked for; `path` None keeps them in memory alone."""

    path: Path | None = None
    figures: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of_this_machine(cls) -> Self:
        """What earlier runs measured on this very machine, or nothing yet."""
        cache = HiddenCache.from_environment()
        if cache.limit == 0:
            return cls()
        path = cache.directory / FILE
        return cls(path, read_figures(path, identity()))

    def read_gb_per_s(self, working_set: int, threads: int, reached: float = 0.0) -> float:
        """GB/s that `threads` threads read from `working_set` bytes. `reached` is what was seen, in the same unit."""
        size = max(1, min(round(working_set / MEBIBYTE), LARGEST_WORKING_SET // MEBIBYTE))
        name = f"GB/s read at best from {size} MiB by {threads} threads"
        return self._figure(name, reached, lambda: _native.read_bandwidth(size * MEBIBYTE, threads, BANDWIDTH_SECONDS) / 1e9)

    def matrix_ops_per_s(self, kind: str, threads: int, reached: float = 0.0) -> float | None:
        """Operations a second of `threads` threads on "int8" or "bf16"; None where the set in use has no such instruction."""
        instruction = matrix_instruction(kind)
        if instruction is None:
            return None
        name = f"{kind} operations/s of {instruction} by {threads} threads"
        return self._figure(name, reached, lambda: _native.matrix_peak(kind, threads, PEAK_SECONDS))

    def _figure(self, name: str, reached: float, measure: Callable[[], float]) -> float:
        if self.figures.get(name, 0.0) <= reached:
            self.figures[name] = max(self.figures.get(name, 0.0), measure())
            if self.path is not None:
                write_figures(self.path, identity(), self.figures)
        return self.figures[name]


def matrix_instruction(kind: str) -> str | None:
    """The instruction behind a matrix peak: "avx512 vpdpbusd", say."""
    return _native.matrix_instruction(kind)


def machine(isa: str) -> dict[str, Any]:
    """What the figures hold for: processor, cores this process may use, instruction set the engine chose."""
    system = f"{platform.system()} {platform.machine()}"
    return {"cpu": processor_name(), "cores": _native.available_cores(), "isa": isa, "system": system}
