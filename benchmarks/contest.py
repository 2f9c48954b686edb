"""Loaded engines measured in turns: round after round, the first of a round being another each time.

Whatever else the machine does then hits all alike. What the machine allows is measured beside each of our own speeds, in
the same round, by a worker without a model; a share is the median of the rounds' shares: on a shared machine a ceiling of
another minute says nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contenders import Entry
from worker import Worker, bitwright_worker

PROMPT, AFTER, STEPS = 512, 16, 128  # tokens read at once; tokens before those decoded, and how many are
CEILING_SECONDS = 0.15  # of measuring each ceiling


@dataclass
class Contender:
    """An entry that is loaded. Speeds are tokens per second, one a round; `weight_bytes` is what a token of ours reads."""

    entry: Entry
    path: Path
    worker: Worker
    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    weight_bytes: int | None = None
    peak_rss_bytes: int = 0
    bandwidth: list[float] = field(default_factory=list)  # bytes/s that the machine reads from as many bytes, beside each round
    peak: list[float] = field(default_factory=list)  # int8 operations/s
    instruction: str | None = None  # behind the peak

    def load(self, threads: int) -> None:
        answer = self.worker.ask("load", model=str(self.path), threads=threads, context=PROMPT, activations="int8")
        self.weight_bytes = answer["weight_bytes"]

    def measure(self, tokens: Sequence[int]) -> None:
        self.prefill.append(len(tokens) / self.worker.ask("prefill", tokens=tokens)["seconds"])
        answer = self.worker.ask("decode", prompt=tokens[:AFTER], steps=STEPS)
        self.decode.append(STEPS / answer["seconds"])
        self.peak_rss_bytes = answer["peak_rss_bytes"]

    def measure_ceilings(self, machine: Worker, threads: int) -> None:
        """Of this very moment; for a contender of ours alone."""
        if self.weight_bytes is None:
            return
        found = machine.ask("ceilings", working_set=self.weight_bytes, threads=threads, seconds=CEILING_SECONDS)
        self.bandwidth.append(found["bandwidth"])
        self.peak.append(found["peak"])
        self.instruction = found["instruction"]

    def figures(self, threads: int) -> dict[str, Any]:
        """Medians, JSON-ready, and the rounds behind them."""
        return {
            "threads": threads,
            "prefill_tokens_per_s": round(statistics.median(self.prefill), 1),
            "decode_tokens_per_s": round(statistics.median(self.decode), 1),
            "weight_bytes": self.weight_bytes,
            "peak_rss_bytes": self.peak_rss_bytes,
            "rounds": {name: getattr(self, name) for name in ("prefill", "decode", "bandwidth", "peak")},
        }

    def shares(self, operations: float) -> dict[str, Any]:
        """What share of the machine a contender of ours uses; a token of the prompt takes `operations`."""
        if self.weight_bytes is None:
            return {}
        of_bandwidth = [self.weight_bytes * speed / most for speed, most in zip(self.decode, self.bandwidth, strict=True)]
        of_peak = [operations * speed / most for speed, most in zip(self.prefill, self.peak, strict=True) if most]
        return {
            "read_gb_per_s": statistics.median(self.bandwidth) / 1e9,
            "decode_fraction_of_bandwidth": statistics.median(of_bandwidth),
            "int8_operations_per_s": statistics.median(self.peak),
            "matrix_instruction": self.instruction,
            "prefill_fraction_of_peak": statistics.median(of_peak) if of_peak else None,
        }


def contest(
    entries: Sequence[tuple[Entry, Path]], tokens: Sequence[int], threads: int, rounds: int, isa: str = ""
) -> list[Contender]:
    """All entries with the models that they load, on prompts of `tokens`; `isa` is forced for the machine's ceilings."""
    with ExitStack() as stack:
        machine = stack.enter_context(bitwright_worker(isa))
        contenders = [Contender(entry, model, stack.enter_context(entry.start())) for entry, model in entries]
        for contender in contenders:
            contender.load(threads)
        _measure_in_turns(contenders, machine, tokens, threads, rounds)
    return contenders


def _measure_in_turns(contenders: list[Contender], machine: Worker, tokens: Sequence[int], threads: int, rounds: int) -> None:
    """The first round warms up and is thrown away."""
    for turn in range(rounds + 1):
        first = turn % len(contenders)
        for contender in contenders[first:] + contenders[:first]:
            contender.measure(tokens)
            contender.measure_ceilings(machine, threads)
    for contender in contenders:
        for figures in (contender.prefill, contender.decode, contender.bandwidth, contender.peak):
            del figures[:1]
