"""Quantizing in a process of its own, so that its peak of memory is of nothing else.

A process that has worked before is no measure: its peak can be counted anew (memory.py), but from what it still holds, such
as torch, weights mapped from disk and what the allocator keeps.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from bitwright import errors
from bitwright.analysis.memory import peak_rss_bytes
from bitwright.calibration.text import Source
from bitwright.core import Recipe
from bitwright.models import load
from bitwright.quantization import quantize


@dataclass(frozen=True)
class Cost:
    """Of loading, calibrating, quantizing and writing: seconds without the interpreter's start, peak resident bytes with it."""

    seconds: float
    peak_rss_bytes: int


def quantize_apart(model: Path, recipe: Recipe, calibration: Source, output: Path) -> Cost:
    """Quantize the model at a path into an artifact at `output`.

    Raises what `load`, `quantize` and `save` raise, and `MemoryError` where the system ended the process.
    """
    paths = {"model": str(model), "output": str(output)}
    task = json.dumps(paths | {"recipe": recipe.to_dict(), "calibration": asdict(calibration)})
    command = [sys.executable, "-m", "bitwright.analysis.own_process"]
    done = subprocess.run(command, input=task, stdout=subprocess.PIPE, text=True)
    if done.returncode == -signal.SIGKILL:
        raise MemoryError("the process was killed, as a system short of memory does; free some, or leave this one out")
    done.check_returncode()
    answer = json.loads(done.stdout)
    if "fault" in answer:
        raise getattr(errors, answer["fault"])(answer["message"])
    return Cost(**answer)


def main() -> None:
    """Do the task on stdin; answer on stdout with what it cost, or with the fault."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # after Ctrl-C the parent speaks
    task, begin = json.load(sys.stdin), time.perf_counter()
    try:
        recipe, calibration = Recipe.from_dict(task["recipe"]), Source(**task["calibration"])
        quantize(load(task["model"]), recipe, calibration).save(task["output"])
        answer = asdict(Cost(time.perf_counter() - begin, peak_rss_bytes()))
    except errors.BitwrightError as fault:
        answer = {"fault": type(fault).__name__, "message": str(fault)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
