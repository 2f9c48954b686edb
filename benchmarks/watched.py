"""A command in a process of its own, as a user feels it: from its start to its end, and what it said to have left on the way.

What it said is read off its lines, which it writes every five seconds and where another phase begins (cli/console.py). Before the
first of them a command says nothing: Python starts, modules are loaded, the machine's pace is measured. Of the last seconds what
is left is too little to be judged by a factor.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Self

from bitwright.cli.console import note

LINE = re.compile(r"(.+): \d+% of all, about (?:(\d+) min )?(\d+) s left")
FACTOR = 1.5  # of the truth, within which what was said to be left should be
LAST_SECONDS = 10.0
SHOWN = 5  # lines of a command that failed


@dataclass(frozen=True)
class Watched:
    """`told` holds seconds since the start, what was being done, and the seconds said to be left."""

    seconds: float
    told: tuple[tuple[float, str, float], ...]

    @classmethod
    def run(cls, *arguments: str) -> Self:
        """`bitwright` with these arguments, which must not fail."""
        told, last, begin = list[tuple[float, str, float]](), deque[str](maxlen=SHOWN), time.perf_counter()
        command = [sys.executable, "-m", "bitwright", *arguments]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            for line in process.stderr:
                last.append(line)
                if match := LINE.fullmatch(line.strip()):
                    told.append((time.perf_counter() - begin, match[1], 60.0 * int(match[2] or 0) + int(match[3])))
        if process.returncode:
            raise SystemExit(f"bitwright {arguments[0]} failed:\n{''.join(last)}")
        found = cls(time.perf_counter() - begin, tuple(told))
        note(f"bitwright {arguments[0]}: {found.seconds:.1f} s")
        for what, seconds in found.phases().items():
            note(f"  {what}: {seconds:.1f} s")
        return found

    def phases(self) -> dict[str, float]:
        """Seconds by what was being done, from its first line to that of the next."""
        if not self.told:
            return {}
        begins = [(at, what) for number, (at, what, _) in enumerate(self.told) if not number or self.told[number - 1][1] != what]
        found: dict[str, float] = {}
        for (at, what), end in zip(begins, [*(at for at, _ in begins[1:]), self.seconds], strict=True):
            found[what] = found.get(what, 0.0) + end - at
        return found

    def to_dict(self) -> dict[str, Any]:
        """`silent`: seconds before the first line. `true_within`: the share of the time from then to LAST_SECONDS before the end
        in which what was said to be left was within FACTOR of the truth; what was said holds until the next line.
        """
        said = {"seconds": self.seconds, "silent": self.told[0][0] if self.told else self.seconds, "phases": self.phases()}
        end = self.seconds - LAST_SECONDS
        judged = [(at, left / (self.seconds - at)) for at, _, left in self.told if at < end]
        if not judged:
            return said
        spans = [after - at for (at, _), after in zip(judged, [*(at for at, _ in judged[1:]), end], strict=True)]
        right = sum(span for (_, ratio), span in zip(judged, spans, strict=True) if 1 / FACTOR <= ratio <= FACTOR)
        ratios = [ratio for _, ratio in judged]
        return said | {"said_over_true": [min(ratios), max(ratios)], "true_within": right / sum(spans)}
