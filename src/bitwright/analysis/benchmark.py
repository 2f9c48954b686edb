"""How fast a model runs here, and how much of the machine that uses.

Prefill: one prompt of `prompt` tokens, tokens per second. Decode: `generate` single-token steps after `depth` tokens.
Each is warmed up once, then the median of the repeats is taken, and held against what the machine allows:

    decode_fraction_of_bandwidth = bytes a token reads x tokens per second / read bandwidth
    prefill_fraction_of_peak     = operations of the prompt / its seconds / peak of int8 operations

analysis/work.py counts bytes and operations, analysis/ceilings.py measures the machine, each with the same number of threads.
The energy of a decoded token is read from the processor where it has counters, else estimated: allocation/energy.py.
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

from bitwright import _native
from bitwright.allocation.energy import RAPL, Energy, Meter, estimate
from bitwright.analysis.ceilings import TYPES, Ceilings, machine, matrix_instruction
from bitwright.analysis.memory import peak_rss_bytes, reset_peak
from bitwright.analysis.work import cache_bytes_read, prompt_operations, token_multiply_adds, weights_multiplied
from bitwright.errors import ContextError, EngineError

if TYPE_CHECKING:
    from bitwright.engine import Engine
    from bitwright.models.base import LanguageModel

Progress = Callable[[int, int], None]

SHALLOW = 16  # tokens in the context when decoding starts, unless told otherwise


@dataclass(frozen=True)
class Work:
    """What is timed: tokens read at once; tokens decoded after each of `depths` tokens, in each of `batches` sequences at once;
    how often each, and on which cache."""

    prompt: int = 512
    generate: int = 128
    depths: tuple[int, ...] = (SHALLOW,)
    batches: tuple[int, ...] = (1,)
    repeats: int = 3
    kv_cache: str = "fp16"

    @property
    def context(self) -> int:
        return max(self.prompt, max(self.depths) + self.generate)

    @property
    def decodes(self) -> list[tuple[int, int]]:
        """(depth, batch) in the order of timing."""
        return [(depth, batch) for depth in self.depths for batch in self.batches]


@dataclass(frozen=True)
class Decode:
    """Decoding `batch` sequences after `depth` tokens. Speed is tokens per second of all together; the fraction is of 1.

    `energy_source` is "RAPL" or "estimate".
    """

    depth: int
    batch: int
    decode_tokens_per_s: float
    decode_fraction_of_bandwidth: float
    joules_per_token: float
    energy_source: str


@dataclass(frozen=True)
class Run:
    """The medians at one thread count."""

    threads: int
    prefill_tokens_per_s: float
    prefill_fraction_of_peak: float | None
    peak_rss_bytes: int
    decodes: tuple[Decode, ...]

    def to_dict(self) -> dict[str, Any]:
        """The first way of decoding stands among the other figures too."""
        first = self.decodes[0]
        named = {
            "decode_tokens_per_s": first.decode_tokens_per_s,
            "decode_fraction_of_bandwidth": first.decode_fraction_of_bandwidth,
            "joules_per_token": first.joules_per_token,
            "energy_source": first.energy_source,
        }
        return asdict(self) | named


def bench(
    model: LanguageModel | str | Path,
    work: Work | None = None,
    threads: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Speeds for each thread count, JSON-ready: `machine`, `ceilings`, `runs` and the sizes of the work.

    The counts are one and all cores that this process may use, unless told otherwise.

    `progress` is told (thread counts done, in all). Raises `EngineError` for counts that make no sense and `ContextError`
    where the model's context is too short.
    """
    from bitwright.models import load

    work, threads = work or Work(), one_and_all() if threads is None else threads
    if not threads or min(work.prompt, work.generate, work.repeats, *work.depths, *work.batches, *threads) < 1:
        raise EngineError(
            "prompt, generate, depth, batch, repeats and threads must be positive; write --prompt 512 --depth 16 --threads 1,2"
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


def one_and_all() -> tuple[int, ...]:
    """One thread, and as many as this process may use cores."""
    return tuple(sorted({1, _native.available_cores()}))


def _measure(model: LanguageModel, threads: int, work: Work, ceilings: Ceilings) -> tuple[Run, int, str]:
    """One thread count, on an engine of its own, so that its peak of memory is its own too.

    Also the bytes that a decoded token reads at the first depth, and the engine's instruction set.
    """
    from bitwright.engine import Engine

    reset_peak()
    engine = Engine.load(model, threads=threads, context=work.context, kv_cache=work.kv_cache)
    meter = Meter.of_this_machine()
    prefill, timed = _speeds(engine, work, meter)
    peak = peak_rss_bytes()  # before a bandwidth is measured, which takes memory too
    operations = prompt_operations(model.architecture, work.prompt) / work.prompt * prefill
    ceiling = ceilings.matrix_ops_per_s("int8", threads, operations)
    decodes, reads = [], []
    for (depth, batch), (speed, joules) in zip(work.decodes, timed, strict=True):
        positions = depth + work.generate // 2
        cached = cache_bytes_read(model.architecture, engine.cache_bytes / engine.context, positions)
        read = engine.weight_bytes + batch * cached  # by one step, which makes `batch` tokens
        reached = read * speed / batch
        bandwidth = ceilings.read_gb_per_s(round(read), threads, reached / 1e9)
        energy = _estimated(model, engine, positions, read / batch) if joules is None else Energy(joules, RAPL)
        decodes.append(Decode(depth, batch, speed, reached / (bandwidth * 1e9), energy.joules, energy.source))
        reads.append(round(read))
    return Run(threads, prefill, operations / ceiling if ceiling else None, peak, tuple(decodes)), reads[0], engine.isa


def _estimated(model: LanguageModel, engine: Engine, positions: int, read: float) -> Energy:
    """Of one token. Weights of two bytes and more are multiplied by floats."""
    integer = engine.weight_bytes < 2 * weights_multiplied(model.architecture)
    return estimate(read, token_multiply_adds(model.architecture, positions), integer)


Timed = tuple[float, float | None]  # tokens per second, joules a token where they are counted


def _speeds(engine: Engine, work: Work, meter: Meter | None) -> tuple[float, list[Timed]]:
    """Medians of prefill's speed, and of decoding after each depth. The tokens are arbitrary: time does not depend on them."""
    tokens = np.random.default_rng(0).integers(0, engine.vocab_size, work.context).astype(np.int32)
    prompt = tokens[: work.prompt]
    engine.prefill(prompt)  # warm-up: page in the weights, wake the threads
    prefill = statistics.median(work.prompt / _seconds(lambda: engine.prefill(prompt)) for _ in range(work.repeats))
    rounds = [  # in turns, so that whatever else the machine does hits all alike
        [_decode_speed(engine, tokens[: depth + work.generate], (depth, batch), meter) for depth, batch in work.decodes]
        for _ in range(work.repeats)
    ]
    return prefill, [_median(timed) for timed in zip(*rounds, strict=True)]


def _median(timed: Sequence[Timed]) -> Timed:
    joules = [each for _, each in timed if each is not None]
    return statistics.median(speed for speed, _ in timed), statistics.median(joules) if joules else None


def _decode_speed(engine: Engine, tokens: npt.NDArray[np.int32], of: tuple[int, int], meter: Meter | None) -> Timed:
    """Tokens a second of all sequences together, each reading the same tokens, and the joules of each; `of` depth and batch."""
    depth, batch = of
    steps = [int(token) for token in tokens[depth:]]
    sequences = [engine.new_sequence() for _ in range(batch)] if batch > 1 else []
    for sequence in sequences:
        engine.read([(sequence, tokens[:depth])])
    if batch == 1:
        engine.prefill(tokens[:depth])

    def decode_all() -> None:
        for token in steps:
            if batch == 1:
                engine.decode(token)
            else:
                engine.read([(sequence, [token]) for sequence in sequences])

    before = meter.read() if meter else ()
    seconds, made = _seconds(decode_all), batch * len(steps)
    return made / seconds, meter.joules(before, meter.read()) / made if meter else None


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
