"""What a benchmark reports, with an engine whose speed is known because its clock is ours."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from analysis.fakes import BigramModel, FakeEngine
from bitwright.analysis import benchmark
from bitwright.analysis.memory import peak_rss_bytes, reset_peak
from bitwright.errors import ContextError, EngineError


class TimedEngine(FakeEngine):
    """Prefill takes 1 ms a token, a decoded token 10 ms; every third repeat is disturbed."""

    now = 0.0
    calls = 0

    def prefill(self, tokens: Any) -> None:
        TimedEngine.calls += 1
        TimedEngine.now += len(tokens) * 1e-3 * (5 if TimedEngine.calls % 3 == 0 else 1)

    def decode(self, token: int) -> None:
        TimedEngine.now += 1e-2

    def new_sequence(self) -> list[int]:
        return []

    def read(self, pieces: Any) -> None:
        """A step takes 10 ms and 1 ms a sequence; each sequence is another one."""
        assert len({id(sequence) for sequence, _ in pieces}) == len(pieces)
        for sequence, tokens in pieces:
            sequence.extend(tokens)
        TimedEngine.now += 1e-2 + 1e-3 * len(pieces)


class KnownCeilings:
    """2 GB/s and 1 Gop/s a thread; remembers what it was asked."""

    asked: list[tuple[int, int, float]] = []

    @classmethod
    def of_this_machine(cls) -> KnownCeilings:
        return cls()

    def read_gb_per_s(self, working_set: int, threads: int, reached: float = 0.0) -> float:
        self.asked.append((working_set, threads, reached))
        return 2.0 * threads

    def matrix_ops_per_s(self, kind: str, threads: int, reached: float = 0.0) -> float | None:
        return 1e9 * threads if kind == "int8" else None


@pytest.fixture(autouse=True)
def timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitwright.engine", SimpleNamespace(Engine=TimedEngine))  # type: ignore[arg-type]
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: TimedEngine.now)
    monkeypatch.setattr(benchmark, "Ceilings", KnownCeilings)
    TimedEngine.calls = 0
    KnownCeilings.asked.clear()


def test_medians_fractions_and_keys() -> None:
    work = benchmark.Work(prompt=100, generate=20, depths=(16, 50))
    result = json.loads(json.dumps(benchmark.bench(BigramModel(), work, threads=(1, 2))))
    first, second = result["runs"]
    assert (first["threads"], second["threads"]) == (1, 2)
    assert first["prefill_tokens_per_s"] == pytest.approx(1000)
    assert first["decode_tokens_per_s"] == pytest.approx(100)
    # In each of two layers a position takes 32 bytes; one layer sees 8 positions at most.
    shallow, deep = 1e6 + 32 * (26 + 8), 1e6 + 32 * (60 + 8)
    assert first["decode_fraction_of_bandwidth"] == pytest.approx(shallow * 100 / 2e9)
    assert second["decode_fraction_of_bandwidth"] == pytest.approx(shallow * 100 / 4e9)
    assert [(decode["depth"], decode["batch"]) for decode in first["decodes"]] == [(16, 1), (50, 1)]
    assert first["decodes"][1]["decode_fraction_of_bandwidth"] == pytest.approx(deep * 100 / 2e9)
    assert first["peak_rss_bytes"] > 1_000_000
    operations = result["ceilings"]["operations_per_prompt_token"]
    assert second["prefill_fraction_of_peak"] == pytest.approx(operations * 1000 / 2e9)
    assert result["ceilings"]["read_gb_per_s"] == {"1": 2.0, "2": 4.0}
    assert result["ceilings"]["matrix_ops_per_s"] == {"int8": {"1": 1e9, "2": 2e9}, "bf16": {"1": None, "2": None}}
    assert result["ceilings"]["working_set_bytes"] == shallow
    assert {"cpu", "cores", "isa"} <= set(result["machine"]) and result["machine"]["isa"] == "numpy"


@pytest.mark.parametrize(("cores", "threads"), [(1, [1]), (3, [1, 3])])
def test_one_thread_and_all_unless_told_otherwise(cores: int, threads: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "_native", SimpleNamespace(available_cores=lambda: cores))
    result = benchmark.bench(BigramModel(), benchmark.Work(prompt=10, generate=2, repeats=1))
    assert [run["threads"] for run in result["runs"]] == threads


def test_a_batch_shares_the_weights() -> None:
    work = benchmark.Work(prompt=100, generate=20, batches=(1, 4))
    one, four = benchmark.bench(BigramModel(), work, threads=(1,))["runs"][0]["decodes"]
    assert (one["batch"], four["batch"]) == (1, 4)
    assert four["decode_tokens_per_s"] == pytest.approx(4 / 14e-3)
    read = 1e6 + 4 * 32 * (26 + 8)
    assert four["decode_fraction_of_bandwidth"] == pytest.approx(read / 14e-3 / 2e9)


def test_a_ceiling_is_told_what_was_reached() -> None:
    benchmark.bench(BigramModel(), benchmark.Work(prompt=100, generate=20), threads=(1,))
    working_set, threads, reached = KnownCeilings.asked[0]
    assert threads == 1 and reached == pytest.approx(working_set * 100 / 1e9)


def test_senseless_requests_are_refused() -> None:
    for wrong in ({"prompt": 0}, {"generate": -1}, {"depths": (16, 0)}, {"batches": (0,)}, {"repeats": 0}):
        with pytest.raises(EngineError, match="must be positive"):
            benchmark.bench(BigramModel(), benchmark.Work(**wrong))
    for threads in ((), (0,)):
        with pytest.raises(EngineError, match="must be positive"):
            benchmark.bench(BigramModel(), threads=threads)
    for work in (benchmark.Work(prompt=5000), benchmark.Work(generate=4600, depths=(16, 400))):
        with pytest.raises(ContextError, match="5000 tokens exceed the model's context of 4096"):
            benchmark.bench(BigramModel(), work)


def test_the_peak_of_memory_is_seen_and_reset() -> None:
    if not reset_peak():
        pytest.skip("this system does not reset a process' peak")
    before = peak_rss_bytes()
    block = bytearray(b"x" * 50_000_000)
    assert peak_rss_bytes() >= before + 40_000_000
    del block
    reset_peak()
    assert peak_rss_bytes() < before + 40_000_000


def test_energy_is_counted_or_else_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    work = benchmark.Work(prompt=100, generate=20, batches=(1, 4))
    monkeypatch.setattr(benchmark.Meter, "of_this_machine", lambda: None)
    run = benchmark.bench(BigramModel(), work, threads=(1,))["runs"][0]
    read, weights = 1e6 + 32 * (26 + 8), 2 * 16 * (2 * 16 + 2 * 8 + 3 * 24) + 16 * 128
    multiply_adds = weights + 2 * 16 * (26 + 8)
    assert run["joules_per_token"] == pytest.approx(read * 1.3e-9 / 8 + multiply_adds * 4.6e-12)  # 1 MB for 5888 weights
    assert run["energy_source"] == "estimate"
    assert run["decodes"][1]["joules_per_token"] < run["joules_per_token"] / 3

    class Counting:
        """A watt."""

        @staticmethod
        def read() -> tuple[float]:
            return (TimedEngine.now,)

        @staticmethod
        def joules(before: tuple[float], after: tuple[float]) -> float:
            return after[0] - before[0]

    monkeypatch.setattr(benchmark.Meter, "of_this_machine", lambda: Counting)
    one, four = benchmark.bench(BigramModel(), work, threads=(1,))["runs"][0]["decodes"]
    assert (one["joules_per_token"], one["energy_source"]) == (pytest.approx(10e-3), "RAPL")
    assert four["joules_per_token"] == pytest.approx(14e-3 / 4)
