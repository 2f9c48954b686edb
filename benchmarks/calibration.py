"""What methods that look at a layer's inputs give and cost: KL, seconds and peak memory, by method, scheme and calibration text.

    python benchmarks/calibration.py [--methods gptq,refine] [--schemes int4-g64-affine,...] [--texts self,FILE] [--tokens 65536]

On the twin of SmolLM2, 16 windows of 512 tokens of WikiText-2 validation, weights alone (fp32 activations), the head at
int8-channel. Each run is a `bitwright quantize` of its own; a row says what it forecast and what it took. Text that the
model writes is written once, before the first run, and not counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from material import TEXT, twin
from results import circumstances, command_line, table, verdict, write

METHODS = ("nearest", "gptq", "gptaq", "refine")
SCHEMES = ("int4-g64-affine", "int4-g64", "int4-g32", "int3-g64-affine", "int2-g64-affine")
SECONDS_BAR, BYTES_BAR, KL_BARS = 90.0, 2e9, {"int4-g64-affine": 0.063, "int3-g64-affine": 0.32}


def command(*arguments: object) -> dict[str, Any]:
    """What one `bitwright ... --json` prints."""
    line = [sys.executable, "-m", "bitwright", *map(str, arguments), "--json"]
    answer = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True)
    data: dict[str, Any] = json.loads(answer.stdout)
    return data


def measure(method: str, scheme: str, text: str, tokens: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "out"
        made = command(
            *("quantize", twin(), "-o", out, "--method", method, "--scheme", scheme),
            *("--calibration", text, "--calibration-tokens", tokens),
        )
        found = command("eval", out, "--reference", twin(), "--text", TEXT, "--tokens", 16 * 512, "--activations", "fp32")
    kept = {key: found[key] for key in ("kl_mean", "kl_mean_interval", "perplexity", "top1_agreement", "bits_per_weight")}
    return {"method": method, "scheme": scheme, "text": Path(text).stem, "tokens": tokens} | made | kept | {"path": ""}


def main() -> None:
    parser = argparse.ArgumentParser(description="Quality and cost of calibrated rounding on the twin of SmolLM2-135M.")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--schemes", default=",".join(SCHEMES))
    parser.add_argument("--texts", default=f"self,{TEXT.parent / 'tinyshakespeare.txt'}")
    parser.add_argument("--tokens", type=int, default=65536)
    options = parser.parse_args()
    if not TEXT.exists():
        raise SystemExit(f"{TEXT} is not here: this benchmark needs the WikiText-2 validation text")
    texts = options.texts.split(",")
    if "self" in texts:
        measure("gptq", "int8-channel", "self", options.tokens)  # writes the text
    rows = []
    for scheme in options.schemes.split(","):
        for method in options.methods.split(","):
            for text in texts[:1] if method == "nearest" else texts:
                rows.append(measure(method, scheme, text, options.tokens))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    report(rows)


def report(rows: list[dict[str, Any]]) -> None:
    data = {"circumstances": circumstances(), "command": command_line(), "rows": rows}
    lines = [
        (
            *(row["scheme"], row["method"], row["text"] if row["method"] != "nearest" else "-", row["bits_per_weight"]),
            *(row["kl_mean"], row["perplexity"], row["seconds"], row.get("forecast", {}).get("seconds", 0.0)),
            *(row["peak_rss_bytes"] / 1e6, row.get("forecast", {}).get("peak_rss_bytes", 0) / 1e6),
        )
        for row in rows
    ]
    bars = []
    for scheme, bar in KL_BARS.items():
        own = [row["kl_mean"] for row in rows if row["scheme"] == scheme and row["text"] == "self" and row["method"] != "nearest"]
        bars += [verdict(f"KL, best method, {scheme}, text of its own", min(own), bar)] if own else []
    gptq = [row for row in rows if row["method"] == "gptq"]
    if gptq:
        bars.append(verdict("seconds of GPTQ, slowest", max(row["seconds"] for row in gptq), SECONDS_BAR))
        bars.append(verdict("peak bytes of GPTQ, hungriest", float(max(row["peak_rss_bytes"] for row in gptq)), BYTES_BAR))
    header = ("scheme", "method", "text", "bits per weight", "KL", "perplexity", "seconds", "forecast", "peak MB", "forecast")
    write("calibration", "Calibrated rounding on the twin of SmolLM2-135M", data, [table(header, lines), *bars])


if __name__ == "__main__":
    main()
