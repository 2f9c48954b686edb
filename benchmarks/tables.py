"""How fast non-uniform formats run beside uniform ones of as many bits, on the twin of SmolLM2.

    python benchmarks/tables.py [--rounds 7] [--threads 1,2]

Each uniform scheme has a contest with others of as many bits (contest.py); weights are rounded to nearest, since what a token
costs depends on shapes and bits and not on values. The bar is of every format with at most 16 levels; where one is not looked
up but held as bytes or decoded to fp32, its row says so. Results are written after every contest: an interrupted run leaves
those it has.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.core import Scheme
from bitwright.engine.layout import held_as
from bitwright.formats import FORMATS
from contenders import OURS, Entry
from contest import PROMPT, Contender, contest
from results import circumstances, command_line, median_ratio, table, verdict, write
from worker import bitwright_worker

CONTESTS = {
    "int4-g64": ("kmeans4-g64", "any4-g64", "nf4-g64", "apot4-g64", "pwl4-g64", "neural4-g64", "local4-g64"),
    "int4-g32": ("mxfp4",),
    "int4-g16": ("nvfp4",),
    "int3-g64": ("kmeans3-g64", "any3-g64", "pot3-g64"),
    "int2-g64": ("kmeans2-g64", "any2-g64", "nf2-g64"),
}
WIDTH = 576  # columns of most of the twin's matrices
BAR = 0.8  # of the uniform scheme's speed: within 25 % of its time


def bits_of(scheme: str) -> int:
    return FORMATS[Scheme.parse(scheme).format].bits


def row_of(one: Contender, uniform: Contender, threads: int) -> dict[str, Any]:
    ratios = {what: median_ratio(getattr(one, what), getattr(uniform, what)) for what in ("prefill", "decode")}
    scheme = one.entry.kind
    who = {"scheme": scheme, "held": held_as(Scheme.parse(scheme), WIDTH), "uniform": uniform.entry.kind}
    return who | one.figures(threads) | ratios


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of non-uniform formats over that of uniform ones.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", default="1,2", help="thread counts, separated by commas")
    options = parser.parse_args()

    tokens = [int(token) for token in np.random.default_rng(0).integers(100, 49000, PROMPT)]
    data: dict[str, Any] = {"circumstances": circumstances(), "command": command_line(), "rows": []}
    for uniform, others in CONTESTS.items():
        with tempfile.TemporaryDirectory() as directory:
            entries = [Entry(OURS, scheme, bits_of(scheme), bitwright_worker) for scheme in (uniform, *others)]
            models = [(entry, entry.model(Path(directory))) for entry in entries]
            for threads in map(int, options.threads.split(",")):
                found = contest(models, tokens, threads, options.rounds)
                data["rows"] += [row_of(one, found[0], threads) for one in found]
        report(data)


def report(data: dict[str, Any]) -> None:
    header = (
        "scheme",
        "in the engine",
        "threads",
        "prefill tokens/s",
        "decode tokens/s",
        "over",
        "prefill ratio",
        "decode ratio",
    )
    figures = ("scheme", "held", "threads", "prefill_tokens_per_s", "decode_tokens_per_s", "uniform", "prefill", "decode")
    bars = [
        verdict(f"{what}, {row['scheme']} over {row['uniform']}, {row['threads']} thread(s)", row[what], BAR, at_least=True)
        for row in data["rows"]
        if row["scheme"] != row["uniform"]
        for what in ("prefill", "decode")
    ]
    rows = [tuple(row[name] for name in figures) for row in data["rows"]]
    write("tables", "Speed of non-uniform formats on the twin of SmolLM2-135M", data, [table(header, rows), *bars])


if __name__ == "__main__":
    main()
