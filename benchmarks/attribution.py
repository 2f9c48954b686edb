"""Which tensor costs what on the twin of SmolLM2, and whether the estimate that plans are made by says the same.

    python benchmarks/attribution.py [--probed 1024] [--only-kinds]

All matrices are rounded to nearest in int4-g64, the head and the embedding too. All of one kind are then quantized together,
which takes a minute; and each tensor alone, and restored alone, which takes many (`--only-kinds` leaves that out): whole runs in
float32 over WikiText-2 validation (analysis/probe.py, analysis/attribution.py). Beside both stands the estimate from one
backward pass. Nothing tells the search where to look; it has to find what other measurements of this model found: v_proj loses
far more than its size explains.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import Any

import numpy as np

import bitwright
from bitwright.allocation.sensitivity import units_of
from bitwright.analysis.attribution import attribute, estimated, rank_correlation
from bitwright.analysis.probe import Probe
from bitwright.analysis.scored_text import read_text, windows_of
from bitwright.analysis.significance import percentile_interval, resample, units_of_windows
from bitwright.cli.console import note, progress
from bitwright.core import Recipe
from bitwright.models import load
from material import TEXT, twin
from results import circumstances, table, verdict, write

SCHEME, CONTEXT = "int4-g64", 256
RANKS, ADDS_UP = 0.9, (0.8, 1.25)  # the order that the estimate must keep, and how far parts may be from the whole
COLUMNS = ("kind", "of the weights", "KL", "interval", "of the sum", "loss for its size", "estimated")


class Setting:
    """The twin, its quantized form, and the text."""

    def __init__(self, probed: int) -> None:
        self.model = load(twin())
        self.quantized = bitwright.quantize(self.model, Recipe.uniform(SCHEME, head=SCHEME))
        windows = windows_of(self.model.tokenizer(), read_text(TEXT, probed), CONTEXT, probed)
        self.windows = np.stack([window for window in windows if len(window) == CONTEXT])


def kinds(at: Setting) -> dict[str, Any]:
    """All tensors of one kind at a time, and all together."""
    units, draws = units_of(at.model), resample(units_of_windows([CONTEXT] * len(at.windows)))
    probe, estimates = Probe(at.model, at.windows), estimated(at.model, at.quantized, at.windows)
    weights, rows = sum(float(np.prod(unit.shape)) for unit in units), list[dict[str, Any]]()
    for kind in dict.fromkeys(unit.kind for unit in units):
        mine = [unit for unit in units if unit.kind == kind]
        kl = probe.divergence({unit.name: at.quantized.read(unit.name) for unit in mine})
        row = {"kind": kind, "weights_share": sum(float(np.prod(unit.shape)) for unit in mine) / weights, "kl": float(kl.mean())}
        row |= {"interval": percentile_interval(draws.means(kl)), "estimated": sum(estimates[unit.name] for unit in mine)}
        rows.append(row)
        note(f"{kind}: {row['kl']:.4g}, estimated {row['estimated']:.4g}")
    together = probe.divergence({unit.name: at.quantized.read(unit.name) for unit in units})
    rows.sort(key=lambda row: -row["kl"] / row["weights_share"])
    interval = percentile_interval(draws.means(together))
    return {"kinds": rows, "together": float(together.mean()), "interval": interval, "tokens": at.windows.size}


def tensors(at: Setting) -> dict[str, Any]:
    """One tensor at a time."""
    shares = attribute(at.model, at.quantized, at.windows, watch=progress)
    return {
        "shares": [vars(share) for share in shares.shares],
        "sum_of_parts": shares.sum_of_parts,
        "rank_correlation": shares.rank_correlation,
        "cumulative": shares.cumulative,
    }


def kind_lines(each: dict[str, Any]) -> list[str]:
    rows = each["kinds"]
    whole, first = sum(kind["kl"] for kind in rows), rows[0]["kind"]
    low, high = each["interval"]
    lines = [f"Together {each['together']:.4g} nats a token ({low:.4g} to {high:.4g}); kinds in sum {whole:.4g}.", ""]
    lines.append(f"- costs most for its size: {first} (bar: v): {'met' if first == 'v' else '**not met**'}")
    order = rank_correlation([kind["kl"] for kind in rows], [kind["estimated"] for kind in rows])
    lines.append(verdict(f"rank correlation of estimated and measured loss, {len(rows)} kinds", order, RANKS, True))
    ratio = each["together"] / whole
    return [*lines, verdict("whole over sum of kinds", ratio, ADDS_UP[0], True), verdict("the same", ratio, ADDS_UP[1])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probed", type=int, default=1024, help="tokens")
    parser.add_argument("--only-kinds", action="store_true", help="not one tensor at a time")
    arguments = parser.parse_args()
    where, at = circumstances(), Setting(arguments.probed)
    each = kinds(at)
    data = {
        "command": shlex.join(["python", "benchmarks/attribution.py", *sys.argv[1:]]),
        "circumstances": where,
        "by_kind": each,
    }
    whole = sum(kind["kl"] for kind in each["kinds"])
    rows = [
        (
            kind["kind"],
            f"{100 * kind['weights_share']:.3g} %",
            kind["kl"],
            "{:.4g} .. {:.4g}".format(*kind["interval"]),
            f"{100 * kind['kl'] / whole:.3g} %",
            f"{kind['kl'] / whole / kind['weights_share']:.3g} times",
            kind["estimated"],
        )
        for kind in each["kinds"]
    ]
    parts, lines = [table(COLUMNS, rows)], kind_lines(each)
    if not arguments.only_kinds:
        one = tensors(at)
        data["by_tensor"] = one
        worst = [(share["tensor"], share["alone"], share["regained"], share["estimated"]) for share in one["shares"][:12]]
        parts.append(table(("tensor", "KL alone", "KL regained", "estimated"), worst))
        name = f"rank correlation of estimated and measured loss, {len(one['shares'])} tensors"
        lines.append(verdict(name, one["rank_correlation"], RANKS, True))
        lines.append(verdict("whole over sum of tensors", each["together"] / one["sum_of_parts"], ADDS_UP[0], True))
    title = f"Which tensors lose most in {SCHEME}, on the twin of SmolLM2-135M"
    write("attribution", title, data, [*parts, "\n".join(lines)])


if __name__ == "__main__":
    main()
