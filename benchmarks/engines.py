"""This engine against its peers: prefill and decode on the same model, bits, threads and tokens, in turns.

    python benchmarks/engines.py [--rounds 9] [--threads 1,2] [--groups best,avx2]

All engines of a group stay loaded, each in a process of its own, and are measured one after the other, round after
round, the first of a round being another each time: whatever else the machine does hits all alike. Prefill is 512
tokens; decode is 128 greedy steps after 16 tokens. Medians over the rounds; a ratio is the median of the rounds' ratios.
What the machine allows is measured beside each of our own speeds, in the same round, and a share is the median of the
rounds' shares: on a shared machine a ceiling of another minute says nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

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
                contender.measure_ceilings(threads)
    for contender in contenders:
        for figures in (contender.prefill, contender.decode, contender.bandwidth, contender.peak):
            del figures[:1]
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


def fractions(contender: Contender, operations: float) -> dict[str, float | None]:
    """What share of the machine a row of ours uses, each round's speed against what the machine allowed in that round."""
    if contender.weight_bytes is None:
        return {}
    shares = [
        contender.weight_bytes * speed / ceiling for speed, ceiling in zip(contender.decode, contender.bandwidth, strict=True)
    ]
    of_peak = [operations * speed / peak for speed, peak in zip(contender.prefill, contender.peak, strict=True) if peak]
    return {
        "read_gb_per_s": statistics.median(contender.bandwidth) / 1e9,
        "decode_fraction_of_bandwidth": statistics.median(shares),
        "int8_operations_per_s": statistics.median(contender.peak),
        "prefill_fraction_of_peak": statistics.median(of_peak) if of_peak else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of this engine and of its peers on the twin of SmolLM2, interleaved.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", default="1,2", help="thread counts, separated by commas")
    parser.add_argument("--groups", default="best,avx2", help=f"of {', '.join(GROUPS)}")
    options = parser.parse_args()

    loads = [round(os.getloadavg()[0], 2)]
    operations = prompt_operations(load(twin()).architecture, PROMPT) / PROMPT
    data: dict[str, Any] = {"circumstances": circumstances(), "command": "python benchmarks/engines.py", "runs": [], "ratios": []}
    data["llama_cpp_build"] = best()
    with tempfile.TemporaryDirectory() as directory:
        for group in options.groups.split(","):
            for threads in map(int, options.threads.split(",")):
                found = contest(group, threads, options.rounds, Path(directory))
                data["runs"] += [row_of(one, group, threads) | fractions(one, operations) for one in found]
                data["ratios"] += [{"group": group, "threads": threads} | each for each in ratios(found)]
                loads.append(round(os.getloadavg()[0], 2))
    report(data | {"load_averages": loads})


if __name__ == "__main__":
    main()
