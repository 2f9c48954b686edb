"""This engine against its peers: prefill and decode on the same model, bits, threads and tokens, in turns.

    python benchmarks/engines.py [--rounds 9] [--threads 1,2] [--groups best,avx2]

All engines of a group stay loaded, each in a process of its own, and are measured one after the other, round after
round, the first of a round being another each time: whatever else the machine does hits all alike. Prefill is 512
tokens; decode is 128 greedy steps after 16 tokens. Medians over the rounds; a ratio is the median of the rounds' ratios.
The machine's ceilings are measured after each contest and again at the end, and the highest count.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.analysis.ceilings import Ceilings
from bitwright.analysis.work import prompt_operations
from bitwright.models import load
from contenders import GROUPS, OURS, PROMPT, Contender, file_bytes
from engines_report import report
from llama_cpp_build import best
from material import twin
from results import circumstances


def contest(group: str, threads: int, rounds: int, directory: Path) -> list[Contender]:
    """All of a group at one thread count. The first round warms up and is thrown away."""
    tokens = [int(token) for token in np.random.default_rng(0).integers(100, 49000, PROMPT)]
    with ExitStack() as stack:
        contenders = []
        for entry in GROUPS[group]:
            model = entry.model(directory)
            contenders.append(Contender(entry, model, stack.enter_context(entry.start())))
            contenders[-1].load(threads)
        for turn in range(rounds + 1):
            first = turn % len(contenders)
            for contender in contenders[first:] + contenders[:first]:
                contender.measure(tokens)
    for contender in contenders:
        del contender.prefill[0], contender.decode[0]
    return contenders


def row_of(contender: Contender, group: str, threads: int) -> dict[str, Any]:
    return {
        "group": group,
        "engine": contender.entry.engine,
        "kind": contender.entry.kind,
        "bits": contender.entry.bits,
        "threads": threads,
        "prefill_tokens_per_s": round(statistics.median(contender.prefill), 1),
        "decode_tokens_per_s": round(statistics.median(contender.decode), 1),
        "file_bytes": file_bytes(contender.path),
        "weight_bytes": contender.weight_bytes,
        "peak_rss_bytes": contender.peak_rss_bytes,
        "rounds": {"prefill": contender.prefill, "decode": contender.decode},
    }


def ratios(contenders: list[Contender]) -> list[dict[str, Any]]:
    """Ours over each peer of as many bits."""
    found = []
    for ours in (one for one in contenders if one.entry.engine == OURS):
        for theirs in (one for one in contenders if one.entry.engine != OURS and one.entry.bits == ours.entry.bits):
            speeds = {"prefill": _ratio(ours.prefill, theirs.prefill), "decode": _ratio(ours.decode, theirs.decode)}
            names = {"ours": ours.entry.kind, "engine": theirs.entry.engine, "theirs": theirs.entry.kind}
            found.append(names | {"bits": ours.entry.bits} | speeds)
    return found


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def measure_ceilings(ceilings: Ceilings, threads: int, working_sets: set[int]) -> None:
    """Again, whatever is known; the highest figures stay."""
    ceilings.matrix_ops_per_s("int8", threads, reached=math.inf)
    for working_set in working_sets:
        ceilings.read_gb_per_s(working_set, threads, reached=math.inf)


def add_fractions(rows: list[dict[str, Any]], ceilings: Ceilings) -> None:
    """To our own rows, what share of the machine they use."""
    operations = prompt_operations(load(twin()).architecture, PROMPT) / PROMPT
    for row in (row for row in rows if row["weight_bytes"]):
        bandwidth = ceilings.read_gb_per_s(row["weight_bytes"], row["threads"]) * 1e9
        row["decode_fraction_of_bandwidth"] = row["weight_bytes"] * row["decode_tokens_per_s"] / bandwidth
        peak = ceilings.matrix_ops_per_s("int8", row["threads"])
        row["prefill_fraction_of_peak"] = operations * row["prefill_tokens_per_s"] / peak if peak else None


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of this engine and of its peers on the twin of SmolLM2, interleaved.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", default="1,2", help="thread counts, separated by commas")
    parser.add_argument("--groups", default="best,avx2", help=f"of {', '.join(GROUPS)}")
    options = parser.parse_args()

    ceilings, loads = Ceilings(), [round(os.getloadavg()[0], 2)]
    data: dict[str, Any] = {"circumstances": circumstances(), "command": "python benchmarks/engines.py", "runs": [], "ratios": []}
    data["llama_cpp_build"] = best()
    with tempfile.TemporaryDirectory() as directory:
        for group in options.groups.split(","):
            for threads in map(int, options.threads.split(",")):
                found = contest(group, threads, options.rounds, Path(directory))
                working_sets = {one.weight_bytes for one in found if one.weight_bytes}
                measure_ceilings(ceilings, threads, working_sets)
                data["runs"] += [row_of(contender, group, threads) for contender in found]
                data["ratios"] += [{"group": group, "threads": threads} | each for each in ratios(found)]
                loads.append(round(os.getloadavg()[0], 2))
    for threads, working_set in {(row["threads"], row["weight_bytes"]) for row in data["runs"] if row["weight_bytes"]}:
        measure_ceilings(ceilings, threads, {working_set})
    add_fractions(data["runs"], ceilings)
    report(data | {"ceilings": ceilings.figures, "load_averages": loads})


if __name__ == "__main__":
    main()
