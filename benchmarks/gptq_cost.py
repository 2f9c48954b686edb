"""What GPTQ of a whole model costs, in seconds and peak memory, on SmolLM2-135M's twin, with and without writing its text.

    python benchmarks/gptq_cost.py [--steps rounding,text]

128 windows of 512 tokens, int4-g64. `rounding` is a `bitwright quantize` that reads its calibration text from a file: start-up,
rounding of all matrices and writing included. `text` is a process in which the model writes as many tokens into an empty cache.
Steps can be measured in runs of their own; the last of each is kept in results/. No other work should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from material import TEXT, twin
from results import RESULTS, circumstances, table, verdict, write

TOKENS, SCHEME = 65536, "int4-g64"
SECONDS_BAR, BYTES_BAR = 90.0, 2e9
STEPS = {"rounding": "quantizing, text at hand", "text": "writing the text"}


def written() -> dict[str, Any]:
    """Have the model write its text, in this process."""
    import bitwright
    from bitwright.calibration.text import Source

    begin = time.perf_counter()
    recipe = bitwright.Recipe.uniform(SCHEME, method="gptq")
    windows = bitwright.quantize(bitwright.load(twin()), recipe, Source.of("self", TOKENS)).text.windows
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"tokens": windows.size, "seconds": time.perf_counter() - begin, "peak_rss_bytes": peak}


def measured(step: str) -> dict[str, Any]:
    """Seconds of a process of its own and what it says of itself."""
    where = circumstances()
    with tempfile.TemporaryDirectory() as directory:
        command = [Path(__file__), "--write-text"]
        if step == "rounding":
            command = ["-m", "bitwright", "quantize", twin(), "-o", Path(directory) / "out", "--method", "gptq", "--json"]
            command += ["--scheme", SCHEME, "--calibration", TEXT, "--calibration-tokens", TOKENS]
        line, environment = [sys.executable, *map(str, command)], os.environ | {"BITWRIGHT_CACHE": directory}
        begin = time.perf_counter()
        done = subprocess.run(line, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        seconds = time.perf_counter() - begin
    peak = json.loads(done.stdout)["peak_rss_bytes"]
    return {"seconds": seconds, "peak_rss_bytes": peak, "circumstances": where}


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds and memory of GPTQ on the twin of SmolLM2-135M.")
    parser.add_argument("--steps", default=",".join(STEPS))
    parser.add_argument("--write-text", action="store_true", help="Only have the text written, and say what that took.")
    options = parser.parse_args()
    if options.write_text:
        print(json.dumps(written()))
        return
    kept = RESULTS / "gptq_cost.json"
    steps = json.loads(kept.read_text("utf-8"))["steps"] if kept.exists() else {}
    for step in options.steps.split(","):
        steps[step] = measured(step)
        report(steps)


def report(steps: dict[str, Any]) -> None:
    rows = {step: steps[step] for step in STEPS if step in steps}
    lines = [
        (STEPS[step], row["seconds"], row["peak_rss_bytes"] / 1e6, row["circumstances"]["load_average"])
        for step, row in rows.items()
    ]
    seconds = [row["seconds"] for row in rows.values()]
    bars = [verdict("seconds of GPTQ, text at hand", rows["rounding"]["seconds"], SECONDS_BAR)] if "rounding" in rows else []
    if len(rows) == len(STEPS):
        bars.append(verdict("seconds of GPTQ, its text written first", sum(seconds), SECONDS_BAR))
    bars.append(verdict("peak bytes", float(max(row["peak_rss_bytes"] for row in rows.values())), BYTES_BAR))
    data = {"circumstances": rows[next(iter(rows))]["circumstances"], "command": "python benchmarks/gptq_cost.py", "steps": steps}
    header = ("step", "seconds", "peak RSS MB", "load before")
    write("gptq_cost", "GPTQ of SmolLM2-135M's twin, 128 windows of 512 tokens", data, [table(header, lines), *bars])


if __name__ == "__main__":
    main()
