"""What quantizing a whole model costs, in seconds, peak memory and bytes, and what its forecast said, on SmolLM2-135M's twin.

    python benchmarks/gptq_cost.py [--steps gptq,text] [--tokens 65536]

128 windows of 512 tokens, int4-g64. A step is a method (gptq, guided, nearest or another) or `text`. Of a method it is a
`bitwright quantize` that reads its calibration text from a file: start-up, rounding of all matrices and writing included; what
`--dry-run` says stands beside it. `text` is a process in which the model writes as many tokens into an empty cache. Steps can be
measured in runs of their own; the last of each is kept in results/. No other work should run meanwhile.
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
DEFAULT, TEXT_STEP = "gptq", "text"


def written(tokens: int) -> dict[str, Any]:
    """Have the model write its text, in this process."""
    import bitwright
    from bitwright.calibration.text import Source

    begin = time.perf_counter()
    recipe = bitwright.Recipe.uniform(SCHEME, method=DEFAULT)
    windows = bitwright.quantize(bitwright.load(twin()), recipe, Source.of("self", tokens)).text.windows
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"tokens": windows.size, "seconds": time.perf_counter() - begin, "peak_rss_bytes": peak}


def measured(step: str, tokens: int) -> dict[str, Any]:
    """Seconds of a process of its own and what it says of itself, beside what was forecast."""
    with tempfile.TemporaryDirectory() as directory:
        environment = os.environ | {"BITWRIGHT_CACHE": directory}

        def said(*command: object) -> dict[str, Any]:
            line = [sys.executable, *map(str, command)]
            found: dict[str, Any] = json.loads(subprocess.run(line, env=environment, check=True, stdout=subprocess.PIPE).stdout)
            return found

        command: list[object] = ["-m", "bitwright", "quantize", twin(), "-o", Path(directory) / "out", "--method", step, "--json"]
        command += ["--scheme", SCHEME, "--calibration", TEXT, "--calibration-tokens", tokens]
        if step == TEXT_STEP:
            command = [Path(__file__), "--write-text", "--tokens", tokens]
        forecast = {} if step == TEXT_STEP else said(*command, "--dry-run")["forecast"]
        where, begin = circumstances(), time.perf_counter()
        done = said(*command)
        seconds = time.perf_counter() - begin
    found = {"seconds": seconds, "peak_rss_bytes": done["peak_rss_bytes"], "size_bytes": done.get("size_bytes", 0)}
    return found | {"tokens": tokens, "forecast": forecast, "circumstances": where}


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Seconds, memory and bytes of quantizing SmolLM2-135M's twin, and their forecasts."
    )
    parser.add_argument("--steps", default=f"{DEFAULT},{TEXT_STEP}", help="Methods, and 'text'.")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="Of calibration text.")
    parser.add_argument("--write-text", action="store_true", help="Only have the text written, and say what that took.")
    options = parser.parse_args()
    if options.write_text:
        print(json.dumps(written(options.tokens)))
        return
    kept = RESULTS / "gptq_cost.json"
    steps = json.loads(kept.read_text("utf-8"))["steps"] if kept.exists() else {}
    steps = {step: row for step, row in steps.items() if row.get("tokens") == options.tokens}
    for step in options.steps.split(","):
        steps[step] = measured(step, options.tokens)
        report(steps)


def report(steps: dict[str, Any]) -> None:
    lines = [_line(step, row) for step, row in steps.items()]
    bars = [verdict("seconds of GPTQ, text at hand", steps[DEFAULT]["seconds"], SECONDS_BAR)] if DEFAULT in steps else []
    if DEFAULT in steps and TEXT_STEP in steps:
        both = sum(steps[step]["seconds"] for step in (DEFAULT, TEXT_STEP))
        bars.append(verdict("seconds of GPTQ, its text written first", both, SECONDS_BAR))
    barred = [float(row["peak_rss_bytes"]) for step, row in steps.items() if step in (DEFAULT, TEXT_STEP)]
    bars += [verdict("peak bytes of GPTQ", max(barred), BYTES_BAR)] if barred else []
    first = next(iter(steps.values()))
    data = {"circumstances": first["circumstances"], "command": "python benchmarks/gptq_cost.py", "steps": steps}
    header = ("step", "seconds", "forecast", "peak RSS MB", "forecast", "MB written", "forecast", "load before")
    title = f"Quantizing SmolLM2-135M's twin, {first['tokens']} tokens of calibration text, and the forecasts"
    write("gptq_cost", title, data, [table(header, lines), *bars])


def _line(step: str, row: dict[str, Any]) -> list[str | float]:
    """Each figure of a step, and its forecast where there is one."""
    line: list[str | float] = ["writing the text" if step == TEXT_STEP else step]
    for key, unit in (("seconds", 1.0), ("peak_rss_bytes", 1e6), ("size_bytes", 1e6)):
        expected = row["forecast"].get(key)
        line += [row[key] / unit, "" if expected is None else f"{expected / unit:.4g}"]
    return [*line, row["circumstances"]["load_average"]]


if __name__ == "__main__":
    main()
