"""How fast a model runs here, and how much of the machine that uses.

Prefill: one prompt of `prompt` tokens, tokens per second. Decode: `generate` single-token steps after `depth` tokens.
Each is warmed up once, then the median of the repeats is taken, and held against what the machine allows:

    decode_fraction_of_bandwidth = bytes a token reads x tokens per second / read bandwidth
    prefill_fraction_of_peak     = operations of the prompt / its seconds / peak of int8 operations

analysis/work.py counts bytes and operations, analysis/ceilings.py measures the machine, each with the same number of threads.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bitwright.analysis.ceilings import TYPES, Ceilings, machine, matrix_instruction
from bitwright.analysis.memory import peak_rss_bytes, reset_peak
from bitwright.analysis.work import cache_bytes, prompt_operations
from bitwright.errors import ContextError, EngineError

if TYPE_CHECKING:
    from bitwright.engine import Engine
    from bitwright.models.base import LanguageModel

Progress = Callable[[int, int], None]

SHALLOW = 16  # tokens in the context when decoding starts, unless told otherwise


@dataclass(frozen=True)
class Work:
    """What is timed: tokens read at once, tokens decoded after each of `depths` tokens, how often each, and on which cache."""

    prompt: int = 512
    generate: int = 128
    depths: tuple[int, ...] = (SHALLOW,)
    repeats: int = 3
    kv_cache: str = "fp16"

    @property
    def context(self) -> int:
        return max(self.prompt, max(self.depths) + self.generate)


@dataclass(frozen=True)
class Decode:
    """Decoding after `depth` tokens. Speed is tokens per second; the fraction is of 1."""

    depth: int
    decode_tokens_per_s: float
    decode_fraction_of_bandwidth: float


@dataclass(frozen=True)
class Run:
    """The medians at one thread count, decoding by depth."""

    threads: int
    prefill_tokens_per_s: float
    prefill_fraction_of_peak: float | None
    peak_rss_bytes: int
    by_depth: tuple[Decode, ...]

    def to_dict(self) -> dict[str, Any]:
        """The decoding at the first depth stands among the others too."""
        first = asdict(self.by_depth[0])
        del first["depth"]
        return asdict(self) | first


def bench(
    model: LanguageModel | str | Path,
    work: Work | None = None,
    threads: Sequence[int] = (1, 2),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Speeds for each thread count, JSON-ready: `machine`, `ceilings`, `runs` and the sizes of the work.

    `progress` is told (thread counts done, in all). Raises `EngineError` for counts that make no sense and `ContextError`
    where the model's context is too short.
    """
    from bitwright.models import load

    work = work or Work()
    if not threads or min(work.prompt, work.generate, work.repeats, *work.depths, *threads) < 1:
        raise EngineError(
            "prompt, generate, depth, repeats and threads must be positive; write --prompt 512 --generate 128 --threads 1,2"
        )
    loaded = load(model) if isinstance(model, str | Path) else model
    limit = loaded.architecture.context_length
    if work.context > limit:
        cure = "ask for fewer with --prompt, --depth and --generate"
        raise ContextError(f"{work.context} tokens exceed the model's context of {limit}; {cure}")
    ceilings, measured = Ceilings.of_this_machine(), []
    for count in threads:
        measured.append(_measure(loaded, count, work, ceilings))
        if progress is not None:
            progress(len(measured), len(threads))
    read, isa = measured[0][1:]
    operations = prompt_operations(loaded.architecture, work.prompt) / work.prompt
    return {
        "machine": machine(isa),
        "ceilings": {
            "working_set_bytes": read,
            "operations_per_prompt_token": operations,
            "read_gb_per_s": {str(count): ceilings.read_gb_per_s(read, count) for count in threads},
            "matrix_instruction": {kind: matrix_instruction(kind) for kind in TYPES},
            "matrix_ops_per_s": {
                kind: {str(count): ceilings.matrix_ops_per_s(kind, count) for count in threads} for kind in TYPES
            },
        },
        **asdict(work),
        "runs": [run.to_dict() for run, _, _ in measured],
    }


def _measure(model: LanguageModel, threads: int, work: Work, ceilings: Ceilings) -> tuple[Run, int, str]:
    """One thread count, on an engine of its own, so that its peak of memory is its own too.

    Also the bytes that a decoded token reads at the first depth, and the engine's instruction set.
    """
    from bitwright.engine import Engine

    reset_peak()
    engine = Engine.load(model, threads=threads, context=work.context, kv_cache=work.kv_cache)
    prefill, speeds = _speeds(engine, work)
    peak = peak_rss_bytes()  # before a bandwidth is measured, which takes memory too
    operations = prompt_operations(model.architecture, work.prompt) / work.prompt * prefill
    ceiling = ceilings.matrix_ops_per_s("int8", threads, operations)
    decodes, reads = [], []
    for depth, speed in zip(work.depths, speeds, strict=True):
        read = engine.weight_bytes + cache_bytes(model.architecture, depth + work.generate // 2, work.kv_cache)
        bandwidth = ceilings.read_gb_per_s(read, threads, read * speed / 1e9)
        decodes.append(Decode(depth, speed, read * speed / (bandwidth * 1e9)))
        reads.append(read)
    return Run(threads, prefill, operations / ceiling if ceiling else None, peak, tuple(decodes)), reads[0], engine.isa


def _speeds(engine: Engine, work: Work) -> tuple[float, list[float]]:
    """Median speed of prefill, and of decoding after each depth. The tokens are arbitrary: the time does not depend on them."""
    tokens = np.random.default_rng(0).integers(0, engine.vocab_size, work.context).astype(np.int32)
    prompt = tokens[: work.prompt]
    engine.prefill(prompt)  # warm-up: page in the weights, wake the threads
    prefill = statistics.median(work.prompt / _seconds(lambda: engine.prefill(prompt)) for _ in range(work.repeats))
    decode = [
        statistics.median(_decode_speed(engine, tokens[: depth + work.generate], depth) for _ in range(work.repeats))
        for depth in work.depths
    ]
    return prefill, decode


def _decode_speed(engine: Engine, tokens: npt.NDArray[np.int32], depth: int) -> float:
    engine.prefill(tokens[:depth])
    steps = [int(token) for token in tokens[depth:]]

    def decode_all() -> None:
        for token in steps:
            engine.decode(token)

    return len(steps) / _seconds(decode_all)


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
