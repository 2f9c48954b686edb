"""Which machine this is, and files of figures measured on it, which a program on another machine does not believe."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitwright import _native
from bitwright.cache import keep


def processor_name() -> str:
    """As the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def identity() -> dict[str, Any]:
    """Host, processor, and the cores that this process may use: what a measured figure holds for."""
    return {"host": platform.node(), "cpu": processor_name(), "cores": _native.available_cores()}


def read_figures(path: Path, holding_for: Mapping[str, Any]) -> dict[str, float]:
    """Figures by their names. A file that holds for something else, or that `write_figures` would not write, has none."""
    try:
        stored = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(stored, dict) or stored.get("machine") != holding_for or not isinstance(stored.get("figures"), dict):
        return {}
    listed = stored["figures"].items()
    return {name: float(value) for name, value in listed if type(value) is float and math.isfinite(value) and value > 0}


def write_figures(path: Path, holding_for: Mapping[str, Any], figures: Mapping[str, float]) -> None:
    """What `read_figures` reads. A folder that cannot be written costs the next run a measurement."""
    text = json.dumps({"machine": holding_for, "figures": figures}, indent=1) + "\n"
    keep(path, lambda file: file.write(text.encode()))
