"""This engine against its peers: prefill and decode on the same model, bits, threads and tokens, in turns.

    python benchmarks/engines.py [--rounds 9] [--threads 1,2] [--groups best,avx2]

All engines of a group (contenders.py) stay loaded, each in a process of its own, and are measured one after the other
(contest.py). Prefill is 512 tokens; decode is 128 greedy steps after 16 tokens. Medians over the rounds; a ratio is the
median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.analysis.work import prompt_operations
from bitwright.models import load
from contenders import FORCED, GROUPS, OURS
from contest import PROMPT, Contender, contest
from engines_report import report
from llama_cpp_build import best
from material import twin
from results import circumstances, command_line, median_ratio


def row_of(contender: Contender, group: str, threads: int, operations: float) -> dict[str, Any]:
    entry = contender.entry
    who = {"group": group, "engine": entry.engine, "kind": entry.kind, "bits": entry.bits}
    return who | {"file_bytes": file_bytes(contender.path)} | contender.figures(threads) | contender.shares(operations)


def file_bytes(model: Path) -> int:
    """Of the files that hold weights."""
    if model.is_file():
        return model.stat().st_size
    kinds = ("*.safetensors", "openvino_model.bin", "*.onnx", "*.onnx.data")
    return sum(path.stat().st_size for kind in kinds for path in model.glob(kind))


def ratios(contenders: list[Contender]) -> list[dict[str, Any]]:
    """Ours over each peer of as many bits."""
    found = []
    for ours in (one for one in contenders if one.entry.engine == OURS):
        for theirs in (one for one in contenders if one.entry.engine != OURS and one.entry.bits == ours.entry.bits):
            speeds = {"prefill": median_ratio(ours.prefill, theirs.prefill), "decode": median_ratio(ours.decode, theirs.decode)}
            names = {"ours": ours.entry.kind, "engine": theirs.entry.engine, "theirs": theirs.entry.kind}
            found.append(names | {"bits": ours.entry.bits} | speeds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of this engine and of its peers on the twin of SmolLM2, interleaved.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", default="1,2", help="thread counts, separated by commas")
    parser.add_argument("--groups", default="best,avx2", help=f"of {', '.join(GROUPS)}")
    options = parser.parse_args()

    tokens = [int(token) for token in np.random.default_rng(0).integers(100, 49000, PROMPT)]
    loads = [round(os.getloadavg()[0], 2)]
    operations = prompt_operations(load(twin()).architecture, PROMPT) / PROMPT
    data: dict[str, Any] = {"circumstances": circumstances(), "command": command_line(), "runs": [], "ratios": []}
    data["llama_cpp_build"] = best()
    with tempfile.TemporaryDirectory() as directory:
        for group in options.groups.split(","):
            for threads in map(int, options.threads.split(",")):
                models = [(entry, entry.model(Path(directory))) for entry in GROUPS[group]]
                found = contest(models, tokens, threads, options.rounds, FORCED[group])
                data["runs"] += [row_of(one, group, threads, operations) for one in found]
                data["ratios"] += [{"group": group, "threads": threads} | each for each in ratios(found)]
                loads.append(round(os.getloadavg()[0], 2))
    report(data | {"load_averages": loads})


if __name__ == "__main__":
    main()
