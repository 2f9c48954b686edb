"""How fast a model runs here, and how much of the machine that uses.

Prefill: one prompt of `prompt` tokens, tokens per second. Decode: `generate` single-token steps after a short prompt.
Each is warmed up once, then the median of the repeats is taken. Decoding reads every weight once a token, so

    decode_fraction_of_bandwidth = weight bytes x tokens per second / read bandwidth

where the bandwidth is measured on this machine just before, by the same number of threads, over as many bytes as the
weights take: a working set that fits in the cache is read faster, and the ceiling must know. `prefill_fraction_of_peak`
is null until the peak of the matrix units is measured.
"""

from __future__ import annotations

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


@dataclass(frozen=True)
class Work:
    """What is timed: tokens read at once, tokens decoded, and how often each."""

    prompt: int
    generate: int
    repeats: int


@dataclass(frozen=True)
class Ceiling:
    """What the machine allows: GB/s that as many threads read from as many bytes as the weights take."""

    isa: str
    working_set_bytes: int
    read_gb_per_s: float


def bench(  # noqa: PLR0913 - the public face: every option by its name
    model: LanguageModel | str | Path,
    prompt: int = 512,
    generate: int = 128,
    threads: Sequence[int] = (1, 2),
    repeats: int = 3,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Speeds for each thread count, JSON-ready: `machine`, `ceilings`, `runs` and the sizes of the work.

    `progress` is told (thread counts done, in all). Raises `EngineError` for counts that make no sense and `ContextError`
    where the model's context is too short.
    """
    from bitwright.models import load

    if min(prompt, generate, repeats, *threads, 1) < 1 or not threads:
        raise EngineError(
            "prompt, generate, repeats and threads must be positive; write --prompt 512 --generate 128 --threads 1,2"
        )
    loaded = load(model) if isinstance(model, str | Path) else model
    context, limit = max(prompt, DECODE_AFTER + generate), loaded.architecture.context_length
    if context > limit:
        raise ContextError(f"{context} tokens exceed the model's context of {limit}; ask for fewer with --prompt and --generate")
    measured = []
    for count in threads:
        measured.append(measure(loaded, count, Work(prompt, generate, repeats)))
        if progress is not None:
            progress(len(measured), len(threads))
    ceiling = measured[0][1]
    bandwidths = {str(run.threads): found.read_gb_per_s for run, found in measured}
    return {
        "machine": machine(ceiling.isa),
        "ceilings": {
            "working_set_bytes": ceiling.working_set_bytes,
            "read_gb_per_s": bandwidths,
            "matrix_ops_per_s": None,
        },
        **asdict(Work(prompt, generate, repeats)),
        "runs": [asdict(run) for run, _ in measured],
    }


def measure(model: LanguageModel, threads: int, work: Work) -> tuple[Run, Ceiling]:
    """One thread count, on an engine of its own, so that its peak of memory is its own too."""
    from bitwright.engine import Engine

    reset_peak()
    engine = Engine.load(model, threads=threads, context=max(work.prompt, DECODE_AFTER + work.generate))
    prefill, decode = _speeds(engine, work)
    peak = peak_rss_bytes()
    ceiling = Ceiling(engine.isa, engine.weight_bytes, read_bandwidth(engine.weight_bytes, threads))
    fraction = engine.weight_bytes * decode / (ceiling.read_gb_per_s * 1e9)
    return Run(threads, prefill, decode, fraction, None, peak), ceiling


def machine(isa: str) -> dict[str, Any]:
    """What the figures hold for: processor, cores this process may use, instruction set the engine chose."""
    system = f"{platform.system()} {platform.machine()}"
    return {"cpu": _processor_name(), "cores": usable_cores(), "isa": isa, "system": system}


def usable_cores() -> int:
    """Cores that this process may run on."""
    from bitwright import _native

    return int(_native.available_cores())


def read_bandwidth(working_set: int, threads: int) -> float:
    """GB/s at which `threads` threads read `working_set` bytes, the best of several passes."""
    from bitwright import _native

    return float(_native.read_bandwidth(working_set, threads, BANDWIDTH_SECONDS)) / 1e9


def _speeds(engine: Engine, work: Work) -> tuple[float, float]:
    """Median prefill and decode speed. The tokens are arbitrary: the time does not depend on them."""
    count = max(work.prompt, DECODE_AFTER + work.generate)
    tokens = np.random.default_rng(0).integers(0, engine.vocab_size, count).astype(np.int32)
    prompt, decoded = tokens[: work.prompt], tokens[: DECODE_AFTER + work.generate]
    engine.prefill(prompt)  # warm-up: page in the weights, wake the threads
    prefill = statistics.median(work.prompt / _seconds(lambda: engine.prefill(prompt)) for _ in range(work.repeats))
    decode = statistics.median(_decode_speed(engine, decoded) for _ in range(work.repeats))
    return prefill, decode


def _decode_speed(engine: Engine, tokens: npt.NDArray[np.int32]) -> float:
    engine.prefill(tokens[:DECODE_AFTER])
    steps = [int(token) for token in tokens[DECODE_AFTER:]]

    def decode_all() -> None:
        for token in steps:
            engine.decode(token)

    return len(steps) / _seconds(decode_all)


def batch_speed(engine: Engine, size: int, generate: int) -> float:
    """Tokens per second of `size` sequences decoding `generate` tokens each together, after a short prompt."""
    tokens = np.random.default_rng(0).integers(0, engine.vocab_size, (DECODE_AFTER + generate, size)).astype(np.int32)
    sequences = [engine.new_sequence() for _ in range(size)]
    engine.read([(sequence, tokens[:DECODE_AFTER, i]) for i, sequence in enumerate(sequences)])

    def decode_all() -> None:
        for step in tokens[DECODE_AFTER:]:
            engine.read([(sequence, step[i : i + 1]) for i, sequence in enumerate(sequences)])

    return size * generate / _seconds(decode_all)


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
