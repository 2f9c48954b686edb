"""What quantizing costs: seconds and peak memory of nearest rounding on SmolLM2-135M, the whole process measured.

    python benchmarks/quantize_cost.py [--repeats 3]

Each run is a fresh `bitwright quantize`, start-up, reading and writing included; memory is the process's peak resident
set as the kernel counted it. This script stays small, because a child's count starts from its parent's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SCHEMES = ("int8-channel", "int4-g64", "int4-g32", "int4-g64-affine", "int3-g64", "int2-g64")
SECONDS_BAR, BYTES_BAR = 5.0, 1e9


def run(source: str, scheme: str, out: Path) -> tuple[float, int]:
    """Seconds and peak bytes of one run."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "bitwright", "quantize", source, "-o", str(out), "--scheme", scheme]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with code {process.returncode}")
    return time.perf_counter() - begin, usage.ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds and memory of quantizing SmolLM2-135M by nearest rounding.")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    command = [sys.executable, "-c", "import smollm2; print(smollm2.package_file())"]
    source = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout.strip()
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        for scheme in SCHEMES:
            runs = [run(source, scheme, Path(directory) / f"{scheme}.{repeat}") for repeat in range(options.repeats)]
            rows.append((scheme, statistics.median(seconds for seconds, _ in runs), max(peak for _, peak in runs)))
    report(rows)


def report(rows: list[tuple[str, float, int]]) -> None:
    from results import circumstances, command_line, table, verdict, write

    data: dict[str, Any] = {
        "circumstances": circumstances(),
        "command": command_line(),
        "rows": [{"scheme": scheme, "seconds": seconds, "peak_rss_bytes": peak} for scheme, seconds, peak in rows],
    }
    lines = [(scheme, round(seconds, 2), round(peak / 1e6)) for scheme, seconds, peak in rows]
    bars = [
        verdict("seconds, slowest scheme", max(seconds for _, seconds, _ in rows), SECONDS_BAR),
        verdict("peak bytes, hungriest scheme", float(max(peak for _, _, peak in rows)), BYTES_BAR),
    ]
    write(
        "quantize_cost",
        "Quantizing SmolLM2-135M by nearest rounding",
        data,
        [table(("scheme", "seconds", "peak RSS MB"), lines), *bars],
    )


if __name__ == "__main__":
    main()
