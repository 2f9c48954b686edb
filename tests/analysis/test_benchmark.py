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


@pytest.fixture(autouse=True)
def timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitwright.engine", SimpleNamespace(Engine=TimedEngine))  # type: ignore[arg-type]
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: TimedEngine.now)
    monkeypatch.setattr(benchmark, "read_bandwidth", lambda working_set, threads: 2.0 * threads)
    TimedEngine.calls = 0


def test_medians_fractions_and_keys() -> None:
    result = json.loads(json.dumps(benchmark.bench(BigramModel(), prompt=100, generate=20, threads=(1, 2))))
    first, second = result["runs"]
    assert (first["threads"], second["threads"]) == (1, 2)
    assert first["prefill_tokens_per_s"] == pytest.approx(1000)
    assert first["decode_tokens_per_s"] == pytest.approx(100)
    assert first["decode_fraction_of_bandwidth"] == pytest.approx(1e6 * 100 / 2e9)
    assert second["decode_fraction_of_bandwidth"] == pytest.approx(1e6 * 100 / 4e9)
    assert first["prefill_fraction_of_peak"] is None and first["peak_rss_bytes"] > 1_000_000
    assert result["ceilings"]["read_gb_per_s"] == {"1": 2.0, "2": 4.0}
    assert {"cpu", "cores", "isa"} <= set(result["machine"]) and result["machine"]["isa"] == "numpy"


def test_senseless_requests_are_refused() -> None:
    for wrong in ({"prompt": 0}, {"generate": -1}, {"threads": ()}, {"threads": (0,)}, {"repeats": 0}):
        with pytest.raises(EngineError, match="must be positive"):
            benchmark.bench(BigramModel(), **wrong)
    with pytest.raises(ContextError, match="5000 tokens exceed the model's context of 4096"):
        benchmark.bench(BigramModel(), prompt=5000)


def test_the_peak_of_memory_is_seen_and_reset() -> None:
    if not reset_peak():
        pytest.skip("this system does not reset a process' peak")
    before = peak_rss_bytes()
    block = bytearray(b"x" * 50_000_000)
    assert peak_rss_bytes() >= before + 40_000_000
    del block
    reset_peak()
    assert peak_rss_bytes() < before + 40_000_000
