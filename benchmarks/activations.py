"""What rounding activations costs beside rounding weights alone, and what calibrating static ranges by entropy costs in time.

    python benchmarks/activations.py [--tokens 4096] [--windows 32]

On the twin of SmolLM2, over windows of 512 tokens of WikiText-2 validation, the head at int8-channel. `engine` rows are run by
the engine's kernels; `simulated` ones by a float forward pass that rounds inputs (docs/activations.md). Weights are calibrated,
where their method asks for it, on text that the model wrote.

Calibration of static ranges: `activations.simulation.static_scales` walks through the model and keeps a histogram of every
layer's input, of one token in STRIDE, of which the cut is then taken. It is timed beside the same walk with nothing observed, by
turns on the same windows; the least of each counts.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import bitwright
from bitwright.activations.kind import Kind
from bitwright.activations.simulation import STRIDE, Turns, static_scales
from bitwright.calibration.forward import forward
from bitwright.calibration.text import Source
from bitwright.models import load
from calibration import command
from material import TEXT, twin
from methods import recipe, written
from results import circumstances, table, verdict, write

CONTEXT = 512
W8, W4 = ("nearest", "int8-channel"), (("gptq", "int4-g64"), ("gptq", "kmeans4-g64"))  # rotated, for one scale a token
RUN = ("fp32", "int16", "int8")
CACHED = ("int8", "int4")  # types of KV cache, with int8 activations; of the others it is fp16
SIMULATED = ("int8-token", "int8-g64", "int8-tensor-entropy", "int8-tensor-mse", "int8-channel", "fp8-token", "fp8-tensor")
W8A8_BAR, MORE_BAR, ENTROPY_BAR = 0.012, 0.10, 0.05
REPEATS, TIMED_WINDOWS = 5, 8


def losses(method: str, scheme: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """KL of these weights with every kind of activations."""
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        out, plan = Path(directory) / "out", Path(directory) / "recipe.json"
        recipe(scheme, method, True).save(plan)
        command("quantize", twin(), "-o", out, "--recipe", plan, "--calibration-tokens", options.windows * CONTEXT)
        for kind in (*RUN, *(SIMULATED if method == "nearest" else ())):
            found = bitwright.evaluate(
                out, twin(), TEXT, CONTEXT, options.tokens, activations=kind, calibration=Source("self", TIMED_WINDOWS)
            )
            rows.append({"weights": f"{method} {scheme}", "activations": kind, "by": "engine" if kind in RUN else "simulated"})
            rows[-1] |= {key: getattr(found, key) for key in ("kl_mean", "kl_mean_interval", "perplexity", "top1_agreement")}
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        if method == "nearest":
            for cache in CACHED:
                found = bitwright.evaluate(out, twin(), TEXT, CONTEXT, options.tokens, activations="int8", kv_cache=cache)
                rows.append({"weights": f"{method} {scheme}", "activations": f"int8, KV cache {cache}", "by": "engine"})
                rows[-1] |= {key: getattr(found, key) for key in ("kl_mean", "kl_mean_interval", "perplexity", "top1_agreement")}
    return rows


def entropy_cost(windows: int) -> dict[str, float]:
    """Seconds of a walk that calibrates by entropy, and of one that observes nothing."""
    model, kind = load(twin()), Kind.parse("int8-tensor-entropy")
    tokens, turns, seconds = np.load(written(windows))[:TIMED_WINDOWS], Turns(model), {"forward": 1e9, "calibrated": 1e9}
    for _ in range(REPEATS):
        begin = time.perf_counter()
        for _site in forward(model, tokens, lambda site, x: x, torch.float32):
            pass
        middle = time.perf_counter()
        static_scales(model, turns, kind, tokens)
        end = time.perf_counter()
        seconds = {"forward": min(seconds["forward"], middle - begin), "calibrated": min(seconds["calibrated"], end - middle)}
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description="What rounding activations costs, on the twin of SmolLM2-135M.")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--windows", type=int, default=32)
    options = parser.parse_args()
    if not TEXT.exists():
        raise SystemExit(f"{TEXT} is not here: this benchmark needs the WikiText-2 validation text")
    where = circumstances()
    seconds = entropy_cost(options.windows)
    rows = [row for weights in (W8, *W4) for row in losses(*weights, options)]
    made = f"python benchmarks/activations.py --tokens {options.tokens} --windows {options.windows}"
    report({"circumstances": where, "command": made, "seconds": seconds, "rows": rows})


def report(data: dict[str, Any]) -> None:
    rows, seconds = data["rows"], data["seconds"]
    found = {(row["weights"], row["activations"]): row["kl_mean"] for row in rows}
    lines = [
        (
            *(row["weights"], row["activations"], row["by"], row["kl_mean"]),
            *("{:.4g} .. {:.4g}".format(*row["kl_mean_interval"]), row["perplexity"], row["top1_agreement"]),
        )
        for row in rows
    ]
    bars = [verdict("KL of W8A8, dynamic", found[" ".join(W8), "int8"], W8A8_BAR)]
    for weights in map(" ".join, W4):
        more = found[weights, "int8"] / found[weights, "fp32"] - 1
        bars.append(verdict(f"KL that int8 activations add to {weights}, as a share of its own", more, MORE_BAR))
    share = seconds["calibrated"] / seconds["forward"] - 1
    bars.append(verdict("time that calibration by entropy adds to the forward passes that feed it", share, ENTROPY_BAR))
    timed = (
        f"A forward pass of {TIMED_WINDOWS} windows of {CONTEXT} tokens: {seconds['forward']:.2f} s with nothing observed, "
        f"{seconds['calibrated']:.2f} s with a histogram of every layer's input, one token in {STRIDE}, and the cuts of least "
        "entropy.\n"
    )
    header = ("weights", "activations", "by", "KL", "interval", "perplexity", "top-1")
    write(
        "activations",
        "Activations on the twin of SmolLM2-135M, WikiText-2 validation",
        data,
        [table(header, lines), timed, *bars],
    )


if __name__ == "__main__":
    main()
