"""What GPTQ of a whole model costs, in seconds and peak memory, on SmolLM2-135M's twin, with and without writing its text.

    python benchmarks/gptq_cost.py [--tokens 65536] [--scheme int4-g64]

128 windows of 512 tokens. A first process has the model write its text, into an empty cache; a second is a `bitwright quantize`
of its own that finds the text there: start-up, rounding of all matrices and writing included. Both are measured whole. No other
work should run meanwhile.
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

from material import twin

SECONDS_BAR, BYTES_BAR = 90.0, 2e9


def written(tokens: int) -> dict[str, Any]:
    """Have the model write its text, in this process."""
    import bitwright
    from bitwright.calibration.text import Source

    begin = time.perf_counter()
    recipe = bitwright.Recipe.uniform("int4-g64", method="gptq")
    shape = bitwright.quantize(bitwright.load(twin()), recipe, Source.of("self", tokens)).text.windows.shape
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"windows": shape[0], "seconds": time.perf_counter() - begin, "peak_rss_bytes": peak}


def answer(*command: object, cache: str) -> dict[str, Any]:
    """The JSON that a process of its own prints, and the seconds it took."""
    begin = time.perf_counter()
    environment = os.environ | {"BITWRIGHT_CACHE": cache}
    done = subprocess.run([sys.executable, *map(str, command)], env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"seconds": time.perf_counter() - begin}


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds and memory of GPTQ on the twin of SmolLM2-135M.")
    parser.add_argument("--tokens", type=int, default=65536)
    parser.add_argument("--scheme", default="int4-g64")
    parser.add_argument("--write-text", action="store_true", help="Only have the text written, and say what that took.")
    options = parser.parse_args()
    if options.write_text:
        print(json.dumps(written(options.tokens)))
        return
    from results import circumstances

    where = circumstances()
    with tempfile.TemporaryDirectory() as directory:
        cache, out = str(Path(directory) / "cache"), Path(directory) / "out"
        text = answer(Path(__file__), "--write-text", "--tokens", options.tokens, cache=cache)
        quantize = ("-m", "bitwright", "quantize", twin(), "-o", out, "--method", "gptq", "--scheme", options.scheme)
        rounding = answer(*quantize, "--calibration-tokens", options.tokens, "--json", cache=cache)
    command = f"python benchmarks/gptq_cost.py --tokens {options.tokens} --scheme {options.scheme}"
    report({"circumstances": where, "command": command, "text": text, "rounding": rounding | {"path": ""}})


def report(data: dict[str, Any]) -> None:
    from results import table, verdict, write

    text, rounding = data["text"], data["rounding"]
    both = text["seconds"] + rounding["seconds"]
    peak = max(text["peak_rss_bytes"], rounding["peak_rss_bytes"])
    lines = [
        ("writing the text", text["seconds"], text["peak_rss_bytes"] / 1e6),
        ("quantizing, text at hand", rounding["seconds"], rounding["peak_rss_bytes"] / 1e6),
        ("both", both, peak / 1e6),
    ]
    bars = [
        verdict("seconds of GPTQ, text at hand", rounding["seconds"], SECONDS_BAR),
        verdict("seconds of GPTQ, its text written first", both, SECONDS_BAR),
        verdict("peak bytes", float(peak), BYTES_BAR),
    ]
    header = ("step", "seconds", "peak RSS MB")
    write("gptq_cost", f"GPTQ of SmolLM2-135M's twin, {text['windows']} windows", data, [table(header, lines), *bars])


if __name__ == "__main__":
    main()
