"""Which tensor costs what on the twin of SmolLM2, and whether the estimate that plans are made by says the same.

    python benchmarks/attribution.py [--probed 1024]

All matrices are rounded to nearest in int4-g64, the head and the embedding too. Each is then quantized alone and restored
alone, by whole runs in float32 over WikiText-2 validation (analysis/attribution.py). Nothing tells the search where to look;
it has to find what other measurements of this model found, a kind at a time: v_proj loses far more than its size explains.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

import bitwright
from bitwright.analysis.attribution import attribute
from bitwright.analysis.documents import by_kind
from bitwright.analysis.scored_text import read_text, windows_of
from bitwright.cli.console import progress
from bitwright.core import Recipe
from bitwright.models import load
from material import TEXT, twin
from results import circumstances, table, verdict, write

SCHEME, CONTEXT = "int4-g64", 256
RANKS, ADDS_UP = 0.9, (0.8, 1.25)  # the order that the estimate must keep, and how far parts may be from the whole
COLUMNS = ("kind", "of the weights", "KL alone, summed", "of the sum", "loss for its size", "KL regained, summed", "estimated")


def found(probed: int) -> dict[str, Any]:
    model, begin = load(twin()), time.perf_counter()
    quantized = bitwright.quantize(model, Recipe.uniform(SCHEME, head=SCHEME))
    windows = windows_of(model.tokenizer(), read_text(TEXT, probed), CONTEXT, probed)
    shares = attribute(model, quantized, np.stack([window for window in windows if len(window) == CONTEXT]), watch=progress)
    kinds = by_kind(quantized, shares)
    for kind in kinds:
        mine = [share for share in shares.shares if share.kind == kind["kind"]]
        kind["regained"], kind["estimated"] = sum(share.regained for share in mine), sum(share.estimated for share in mine)
    worst = [vars(share) for share in shares.shares[:12]]
    whole = {"together": shares.together, "interval": shares.together_interval, "sum_of_parts": shares.sum_of_parts}
    whole |= {"rank_correlation": shares.rank_correlation, "cumulative": shares.cumulative, "tensors": len(shares.shares)}
    return {"kinds": kinds, "worst": worst, "tokens": probed, "seconds": time.perf_counter() - begin} | whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probed", type=int, default=1024, help="tokens")
    arguments = parser.parse_args()
    where = circumstances()
    each = found(arguments.probed)
    rows = [
        (
            kind["kind"],
            f"{100 * kind['weights_share']:.3g} %",
            kind["kl"],
            f"{100 * kind['kl_share']:.3g} %",
            f"{kind['kl_share'] / kind['weights_share']:.3g} times",
            kind["regained"],
            kind["estimated"],
        )
        for kind in each["kinds"]
    ]
    low, high = each["interval"]
    first = each["kinds"][0]["kind"]
    ratio = each["together"] / each["sum_of_parts"]
    lines = [
        f"Together {each['together']:.4g} nats a token ({low:.4g} to {high:.4g}), one by one {each['sum_of_parts']:.4g} in sum, "
        f"over {each['tokens']} tokens in {each['seconds']:.0f} s.",
        "",
        f"- costs most for its size: {first} (bar: v): {'met' if first == 'v' else '**not met**'}",
        verdict(
            f"rank correlation of estimated and measured loss, {each['tensors']} tensors", each["rank_correlation"], RANKS, True
        ),
        verdict("whole over sum of parts, at least", ratio, ADDS_UP[0], True),
        verdict("whole over sum of parts, at most", ratio, ADDS_UP[1]),
    ]
    worst = [(share["tensor"], share["alone"], share["regained"], share["estimated"]) for share in each["worst"]]
    data = {"command": "python benchmarks/attribution.py", "circumstances": where} | each
    title = f"Which tensors lose most in {SCHEME}, on the twin of SmolLM2-135M"
    parts = [table(COLUMNS, rows), table(("tensor", "KL alone", "KL regained", "estimated"), worst), "\n".join(lines)]
    write("attribution", title, data, parts)


if __name__ == "__main__":
    main()
