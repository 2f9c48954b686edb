"""How fast a model runs here, and how much of the machine that uses.

Prefill: one prompt of `prompt` tokens, tokens per second. Decode: `generate` single-token steps after a short prompt.
Each is warmed up once, then the median of the repeats is taken. Decoding reads every weight once a token, so

    decode_fraction_of_bandwidth = weight bytes x tokens per second / read bandwidth

where the bandwidth is measured on this machine just before, by the same number of threads, over as many bytes as the
weights take: a working set that fits in the cache is read faster, and the ceiling must know. `prefill_fraction_of_peak`
is null until the peak of the matrix units is measured.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bitwright.analysis.memory import peak_rss_bytes, reset_peak
from bitwright.errors import ContextError, EngineError

if TYPE_CHECKING:
    from bitwright.engine import Engine
    from bitwright.models.base import LanguageModel

Progress = Callable[[int, int], None]

DECODE_AFTER = 16  # tokens in the context when decoding starts
BANDWIDTH_SECONDS = 0.5


@dataclass(frozen=True)
class Run:
    """The medians at one thread count. Speeds are tokens per second; `decode_fraction_of_bandwidth` is of 1."""

    threads: int
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    decode_fraction_of_bandwidth: float
    prefill_fraction_of_peak: float | None
    peak_rss_bytes: int


def bench(  # noqa: PLR0913 - the public face: every option by its name
    model: LanguageModel | str | Path,
    prompt: int = 512,
    generate: int = 128,
    threads: Sequence[int] = (1, 2),
    repeats: int = 3,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Speeds for each thread count, JSON-ready: `machine`, `ceilings`, `runs` and the sizes of the work.

    Raises `EngineError` for counts that make no sense and `ContextError` where the model's context is too short.
    """
    from bitwright.engine import Engine
    from bitwright.models import load

    if min(prompt, generate, repeats, *threads, 1) < 1 or not threads:
        raise EngineError(
            "prompt, generate, repeats and threads must be positive; write --prompt 512 --generate 128 --threads 1,2"
        )
    loaded = load(model) if isinstance(model, str | Path) else model
    context = max(prompt, DECODE_AFTER + generate)
    if context > loaded.architecture.context_length:
        raise ContextError(f"{context} tokens exceed the model's context of {loaded.architecture.context_length}; ask for fewer")
    runs, bandwidths, engine = [], {}, None
    for position, count in enumerate(threads):
        reset_peak()
        engine = Engine.load(loaded, threads=count, context=context)
        speeds = _speeds(engine, prompt, generate, repeats)
        peak = peak_rss_bytes()
        bandwidths[str(count)] = bandwidth = read_bandwidth(engine.weight_bytes, count)
        fraction = engine.weight_bytes * speeds[1] / (bandwidth * 1e9)
        runs.append(Run(count, *speeds, fraction, None, peak))
        if progress is not None:
            progress(position + 1, len(threads))
    assert engine is not None
    return {
        "machine": machine(engine.isa),
        "ceilings": {"working_set_bytes": engine.weight_bytes, "read_gb_per_s": bandwidths, "matrix_ops_per_s": None},
        "prompt": prompt,
        "generate": generate,
        "repeats": repeats,
        "runs": [asdict(run) for run in runs],
    }


def machine(isa: str) -> dict[str, Any]:
    """What the figures hold for: processor, cores this process may use, instruction set the engine chose."""
    system = f"{platform.system()} {platform.machine()}"
    return {"cpu": _processor_name(), "cores": usable_cores(), "isa": isa, "system": system}


def usable_cores() -> int:
    """Cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def read_bandwidth(working_set: int, threads: int) -> float:
    """GB/s at which `threads` threads read `working_set` bytes again and again."""
    from bitwright import _native

    return float(_native.read_bandwidth(working_set, threads, BANDWIDTH_SECONDS))


def _speeds(engine: Engine, prompt: int, generate: int, repeats: int) -> tuple[float, float]:
    """Median prefill and decode speed. The tokens are arbitrary: the time does not depend on them."""
    vocabulary = engine.vocab_size
    tokens = np.random.default_rng(0).integers(0, vocabulary, max(prompt, DECODE_AFTER + generate)).astype(np.int32)
    engine.prefill(tokens[:prompt])  # warm-up: page in the weights, wake the threads
    prefill = statistics.median(prompt / _seconds(lambda: engine.prefill(tokens[:prompt])) for _ in range(repeats))
    decode = statistics.median(_decode_speed(engine, tokens[: DECODE_AFTER + generate]) for _ in range(repeats))
    return prefill, decode


def _decode_speed(engine: Engine, tokens: npt.NDArray[np.int32]) -> float:
    engine.prefill(tokens[:DECODE_AFTER])
    steps = [int(token) for token in tokens[DECODE_AFTER:]]

    def decode_all() -> None:
        for token in steps:
            engine.decode(token)

    return len(steps) / _seconds(decode_all)


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
