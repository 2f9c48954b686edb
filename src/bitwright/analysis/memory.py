"""The most memory this process has held, resident: Linux' VmHWM, which a process may reset for itself."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def peak_rss_bytes() -> int:
    """Peak resident bytes since the start, or since the last `reset_peak` where the system allows one."""
    try:
        status = Path("/proc/self/status").read_text("ascii", errors="replace")
    except OSError:  # not Linux
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def reset_peak() -> bool:
    """Start counting anew from what is resident now. False where the system does not allow it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # 5 resets VmHWM alone: see proc(5)
    except OSError:
        return False
    return True
