"""How fast non-uniform formats run beside uniform ones of as many bits, on the twin of SmolLM2.

    python benchmarks/tables.py [--rounds 7] [--threads 1,2]

Each contest is a uniform scheme and others of as many bits, in one process, by turns: a prompt of 512 tokens and 64 decoded ones;
medians of speeds, and medians over the rounds of each round's ratio to the uniform one. What a token costs depends on shapes and
bits and not on values, so weights are rounded to nearest. The bar is of every format with at most 16 levels; where one is not
looked up but held as bytes or decoded to fp32, its row says so.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import bitwright
from bitwright.core import Scheme
from bitwright.engine import Engine
from bitwright.engine.layout import held_as
from material import twin
from results import circumstances, command_line, table, verdict, write

CONTESTS = {
    "int4-g64": ("kmeans4-g64", "any4-g64", "nf4-g64", "apot4-g64", "pwl4-g64", "neural4-g64", "local4-g64"),
    "int4-g32": ("mxfp4",),
    "int4-g16": ("nvfp4",),
    "int3-g64": ("kmeans3-g64", "any3-g64", "pot3-g64"),
    "int2-g64": ("kmeans2-g64", "any2-g64", "nf2-g64"),
}
PROMPT, DECODED = 512, 64
WIDTH = 576  # columns of most of the twin's matrices
BAR = 0.8  # of the uniform scheme's speed: within 25 % of its time
Speeds = tuple[float, float]


def artifact(scheme: str, directory: Path) -> Path:
    path = directory / scheme
    bitwright.quantize(bitwright.load(twin()), bitwright.Recipe.uniform(scheme)).save(path)
    return path


def speeds(engine: Engine) -> Speeds:
    """(prompt, decoded) tokens a second."""
    prompt = (np.arange(PROMPT, dtype=np.int32) * 7) % engine.vocab_size
    begin = time.perf_counter()
    engine.prefill(prompt)
    middle = time.perf_counter()
    for token in range(DECODED):
        engine.decode(token)
    return PROMPT / (middle - begin), DECODED / (time.perf_counter() - middle)


def contest(uniform: str, paths: dict[str, Path], threads: int, rounds: int) -> list[dict[str, Any]]:
    """A row for each scheme, the uniform one first."""
    engines = {scheme: Engine.load(path, threads=threads, context=PROMPT + DECODED) for scheme, path in paths.items()}
    for engine in engines.values():
        speeds(engine)
    timed = [{scheme: speeds(engine) for scheme, engine in engines.items()} for _ in range(rounds)]
    rows = []
    for scheme in paths:
        row: dict[str, Any] = {"scheme": scheme, "uniform": uniform, "threads": threads}
        row["held"] = held_as(Scheme.parse(scheme), WIDTH)
        for place, what in enumerate(("prefill", "decode")):
            row[f"{what}_tokens_per_s"] = statistics.median(each[scheme][place] for each in timed)
            row[what] = statistics.median(each[scheme][place] / each[uniform][place] for each in timed)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of non-uniform formats over that of uniform ones.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", default="1,2", help="thread counts, separated by commas")
    options = parser.parse_args()

    data: dict[str, Any] = {"circumstances": circumstances(), "command": command_line(), "rows": []}
    for uniform, others in CONTESTS.items():
        with tempfile.TemporaryDirectory() as directory:
            paths = {scheme: artifact(scheme, Path(directory)) for scheme in (uniform, *others)}
            for threads in map(int, options.threads.split(",")):
                data["rows"] += contest(uniform, paths, threads, options.rounds)
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
