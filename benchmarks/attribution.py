"""Which tensor costs what on the twin of SmolLM2, and whether the estimate that plans are made by says the same.

    python benchmarks/attribution.py [--probed 1024]

All matrices are rounded to nearest in int4-g64, the head and the embedding too. The attribution is the one that
`bitwright analyze` shows (analysis/attribution.py), over as many tokens: each tensor alone, and restored alone, in whole runs in
float32 over WikiText-2 validation, beside the estimate from one backward pass. Kinds are sums over their tensors. Nothing tells
the search where to look; it has to find what other measurements of this model found: v_proj loses far more than its size tells.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from typing import Any

import numpy as np

import bitwright
from bitwright.analysis.attribution import Attribution, attribute, rank_correlation
from bitwright.analysis.documents import by_kind
from bitwright.analysis.scored_text import read_text, windows_of
from bitwright.cli.console import progress
from bitwright.core import Recipe
from bitwright.models import load
from bitwright.quantization import QuantizedModel
from material import TEXT, twin
from results import circumstances, command_line, table, verdict, write

SCHEME, CONTEXT = "int4-g64", 256
RANKS, ADDS_UP = 0.9, (0.8, 1.25)  # the order that the estimate must keep, and how far parts may be from the whole
KINDS = ("kind", "of the weights", "KL alone", "of the sum", "loss for its size", "KL regained", "estimated")
TENSORS = ("tensor", "KL alone", "interval", "KL regained", "estimated")
SHOWN = 12  # tensors


def attributed(probed: int) -> tuple[QuantizedModel, Attribution]:
    """The twin's quantized form, and which of its tensors costs what."""
    model = load(twin())
    quantized = bitwright.quantize(model, Recipe.uniform(SCHEME, head=SCHEME))
    windows = windows_of(model.tokenizer(), read_text(TEXT, probed), CONTEXT, probed)
    whole = np.stack([window for window in windows if len(window) == CONTEXT])
    return quantized, attribute(model, quantized, whole, watch=progress)


def kinds_of(quantized: QuantizedModel, found: Attribution) -> list[dict[str, Any]]:
    """As the report has them, with what comes back when each tensor is restored, and what was estimated, in sum."""
    sums: dict[str, dict[str, float]] = defaultdict(lambda: {"regained": 0.0, "estimated": 0.0})
    for share in found.shares:
        sums[share.kind]["regained"] += share.regained or 0.0
        sums[share.kind]["estimated"] += share.estimated
    return [kind | sums[kind["kind"]] for kind in by_kind(quantized, found)]


def kind_rows(kinds: list[dict[str, Any]]) -> list[tuple[str | float, ...]]:
    return [
        (
            kind["kind"],
            f"{100 * kind['weights_share']:.3g} %",
            kind["kl"],
            f"{100 * kind['kl_share']:.3g} %",
            f"{kind['kl_share'] / kind['weights_share']:.3g} times",
            kind["regained"],
            kind["estimated"],
        )
        for kind in kinds
    ]


def tensor_rows(shares: list[dict[str, Any]]) -> list[tuple[str | float, ...]]:
    found: list[tuple[str | float, ...]] = []
    for share in shares[:SHOWN]:
        low, high = share["alone_interval"]
        found.append((share["tensor"], share["alone"], f"{low:.4g} .. {high:.4g}", share["regained"], share["estimated"]))
    return found


def lines(each: dict[str, Any]) -> list[str]:
    kinds, (low, high) = each["kinds"], each["together_interval"]
    first, ratio = kinds[0]["kind"], each["together"] / each["sum_of_parts"]
    order = rank_correlation([kind["kl"] for kind in kinds], [kind["estimated"] for kind in kinds])
    tensors = f"rank correlation of estimated and measured loss, {len(each['shares'])} tensors"
    whole = f"Together {each['together']:.4g} nats a token ({low:.4g} to {high:.4g}); tensors in sum {each['sum_of_parts']:.4g}, "
    return [
        whole + f"regained in sum {each['regained_in_sum']:.4g}. It took {each['seconds']:.0f} s.\n",
        f"- costs most for its size: {first} (bar: v): {'met' if first == 'v' else '**not met**'}",
        verdict(f"rank correlation of estimated and measured loss, {len(kinds)} kinds", order, RANKS, at_least=True),
        verdict(tensors, each["rank_correlation"], RANKS, at_least=True),
        verdict("whole over sum of tensors", ratio, ADDS_UP[0], at_least=True),
        verdict("the same", ratio, ADDS_UP[1]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probed", type=int, default=1024, help="tokens")
    arguments = parser.parse_args()
    where, begin = circumstances(), time.perf_counter()
    quantized, found = attributed(arguments.probed)
    each = {
        "tokens": arguments.probed,
        "seconds": time.perf_counter() - begin,
        "kinds": kinds_of(quantized, found),
        "shares": [vars(share) for share in found.shares],
        "together": found.together,
        "together_interval": found.together_interval,
        "sum_of_parts": found.sum_of_parts,
        "regained_in_sum": sum(share.regained or 0.0 for share in found.shares),
        "rank_correlation": found.rank_correlation,
        "cumulative": found.cumulative,
    }
    parts = [table(KINDS, kind_rows(each["kinds"])), table(TENSORS, tensor_rows(each["shares"]))]
    title = f"Which tensors lose most in {SCHEME}, on the twin of SmolLM2-135M"
    data = {"command": command_line(), "circumstances": where} | each
    write("attribution", title, data, [*parts, "\n".join(lines(each))])


if __name__ == "__main__":
    main()
