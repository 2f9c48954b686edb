"""This engine against llama.cpp: prefill and decode on the same model, threads and tokens, in turns.

    python benchmarks/engines.py [--rounds 9] [--threads 1,2]

All engines stay loaded, each in a process of its own, and are measured one after the other, round after round, the
first of a round being another each time: whatever else the machine does hits all alike. Prefill is 512 tokens; decode
is 128 steps after 16 tokens, each step ending with a greedy choice from the logits. Medians over the rounds; a ratio is
the median of the rounds' ratios. llama.cpp runs as pip builds it here, without AMX.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.inspection import summary
from bitwright.models import load
from material import artifact_of_twin, gguf_of_twin
from results import circumstances, table, verdict, write
from worker import Worker, bitwright_worker, llama_cpp_worker

PROMPT, AFTER, STEPS = 512, 16, 128
PAIRS = {"int4-g32": "Q4_0", "int4-g64": "Q4_0", "int8-channel": "Q8_0"}
DECODE_BAR, PREFILL_BAR = 1.5, 1.0


@dataclass
class Contender:
    """One engine with one model. Speeds are tokens per second, one entry a round."""

    name: str
    path: Path
    worker: Worker
    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    peak_rss_bytes: int = 0

    def measure(self, tokens: list[int]) -> None:
        self.prefill.append(PROMPT / self.worker.ask("prefill", tokens=tokens)["seconds"])
        answer = self.worker.ask("decode", prompt=tokens[:AFTER], steps=STEPS)
        self.decode.append(STEPS / answer["seconds"])
        self.peak_rss_bytes = answer["peak_rss_bytes"]


def contest(models: dict[str, Path], threads: int, rounds: int) -> dict[str, Contender]:
    """All contenders at one thread count. The first round warms up and is thrown away."""
    tokens = [int(token) for token in np.random.default_rng(0).integers(100, 49000, PROMPT)]
    with ExitStack() as stack:
        contenders = []
        for name, path in models.items():
            worker = stack.enter_context(llama_cpp_worker() if path.suffix == ".gguf" else bitwright_worker())
            worker.ask("load", model=str(path), threads=threads, context=PROMPT, activations="int8")
            contenders.append(Contender(name, path, worker))
        for turn in range(rounds + 1):
            first = turn % len(contenders)
            for contender in contenders[first:] + contenders[:first]:
                contender.measure(tokens)
    for contender in contenders:
        del contender.prefill[0], contender.decode[0]
    return {contender.name: contender for contender in contenders}


def ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def row_of(contender: Contender, threads: int) -> dict[str, Any]:
    return {
        "model": contender.name,
        "threads": threads,
        "prefill_tokens_per_s": round(statistics.median(contender.prefill), 1),
        "decode_tokens_per_s": round(statistics.median(contender.decode), 1),
        "weight_bytes": sum(tensor["bytes"] for tensor in summary(load(contender.path))["tensors"]),
        "peak_rss_bytes": contender.peak_rss_bytes,
        "rounds": {"prefill": contender.prefill, "decode": contender.decode},
    }


def prepare(directory: Path) -> dict[str, Path]:
    """All models by name, ours made under `directory`."""
    with bitwright_worker() as ours, llama_cpp_worker() as theirs:
        models = {f"Bitwright {scheme}": artifact_of_twin(scheme, directory, ours) for scheme in PAIRS}
        return models | {f"llama.cpp {kind}": gguf_of_twin(kind, theirs) for kind in PAIRS.values()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of this engine and of llama.cpp on the twin of SmolLM2, interleaved.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", default="1,2", help="thread counts, separated by commas")
    options = parser.parse_args()

    data: dict[str, Any] = {"circumstances": circumstances(), "command": "python benchmarks/engines.py", "runs": [], "ratios": []}
    with tempfile.TemporaryDirectory() as directory:
        models = prepare(Path(directory))
        for threads in map(int, options.threads.split(",")):
            found = contest(models, threads, options.rounds)
            data["runs"] += [row_of(contender, threads) for contender in found.values()]
            for scheme, kind in PAIRS.items():
                ours, theirs = found[f"Bitwright {scheme}"], found[f"llama.cpp {kind}"]
                speeds = {"prefill": ratio(ours.prefill, theirs.prefill), "decode": ratio(ours.decode, theirs.decode)}
                data["ratios"].append({"ours": scheme, "theirs": kind, "threads": threads} | speeds)
    report(data)


def report(data: dict[str, Any]) -> None:
    megabyte = 1e6
    speeds = [
        (
            run["model"],
            run["threads"],
            run["prefill_tokens_per_s"],
            run["decode_tokens_per_s"],
            run["weight_bytes"] / megabyte,
            run["peak_rss_bytes"] / megabyte,
        )
        for run in data["runs"]
    ]
    ratios = [(r["ours"], r["theirs"], r["threads"], r["prefill"], r["decode"]) for r in data["ratios"]]
    bars = [
        verdict(f"{what}, {r['ours']} over {r['theirs']}, {r['threads']} threads", r[what], bar, at_least=True)
        for r in data["ratios"]
        for what, bar in (("decode", DECODE_BAR), ("prefill", PREFILL_BAR))
    ]
    parts = [
        table(("model", "threads", "prefill tokens/s", "decode tokens/s", "weights MB", "peak RSS MB"), speeds),
        table(("Bitwright", "llama.cpp", "threads", "prefill ratio", "decode ratio"), ratios),
        *bars,
    ]
    write("engines", "Speed on the twin of SmolLM2-135M, beside llama.cpp", data, parts)


if __name__ == "__main__":
    main()
