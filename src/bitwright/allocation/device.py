"""What a token costs on this machine, for each way of storing its matrices: measured once, then kept.

For every scheme a stand-in of the model's own shape (allocation/stand_in.py) decodes and reads prompts in the engine
itself, which says how long each stage of its steps took. So the figures hold for the kernels, the thread team, the barriers
and the working set of a real token, not for a loop over one matrix that a cache holds. A plan's token then takes

    sum over its matrices of decode_seconds(scheme, shape) + other_seconds(architecture, context)

A stage multiplies one to three matrices, and each is charged for its share of the rows. A plan mixes schemes within stages,
which takes less or more than that sum: so a chosen plan is timed itself (mix.py). Figures are medians of tokens, of the round
that took least: they are kept, and what waited for another program today says nothing of tomorrow. Schemes take turns, and
before each the first is timed again: machines that others use change pace within seconds, and ratios of neighbours do not.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from bitwright import __version__, _native
from bitwright.allocation.stand_in import MixedStandIn, StandIn, role_shapes
from bitwright.cache import cache_directory
from bitwright.core import Scheme
from bitwright.engine import CACHES, Engine, Options
from bitwright.errors import CostError
from bitwright.machine import identity, read_figures, write_figures
from bitwright.models.architecture import Architecture
from bitwright.models.base import LanguageModel, Packed
from bitwright.models.row_blocks import stored_blocks

Progress = Callable[[int, int], None]

FILE = "device_costs.json"
PROMPT = 256  # tokens of a prompt: enough for two threads to share out its rows
SHALLOW, DEEP = 16, 1024  # tokens in the context when a burst begins
BURST, BURSTS = 12, 2  # tokens; how often
PROMPTS = 3
ROUNDS = 6  # in which every scheme has its turn
STAGES = {  # of the engine's steps -> the matrices that it multiplies
    "query_key_value": ("q", "k", "v"),
    "output": ("o",),
    "gate_up": ("gate", "up"),
    "down": ("down",),
    "head": ("head",),
}
KEPT_TOGETHER = {"q_k_v": "query_key_value", "gate_up": "gate_up"}  # tensors that some families store as one


@dataclass(frozen=True)
class DeviceCosts:
    """Seconds by name, for models of one shape on this machine; see the module. `machine` is a line for people."""

    machine: str
    threads: int
    shape: str
    shares: Mapping[tuple[int, int], tuple[tuple[str, float], ...]]
    figures: Mapping[str, float] = field(repr=False)

    @classmethod
    def measured(
        cls,
        architecture: Architecture,
        schemes: Sequence[Scheme],
        threads: int | None = None,
        progress: Progress | None = None,
        rotated: bool = True,
        activations: str = "int8",
    ) -> Self:
        """Everything that is asked for and not in the cache is measured now, a second or two for a scheme.

        `progress` is told (steps done, in all). `rotated`: for matrices whose columns are turned, as recipes do by default.
        `activations` are the engine's kinds.
        Raises `SchemeError` where a group does not divide the model's rows.
        """
        costs, figures = cls._kept(architecture, threads, activations)
        missing = [scheme for scheme in schemes if not costs.knows(scheme, rotated)]
        if missing:
            figures.update(costs._measure(architecture, missing, rotated, activations, progress))
            write_figures(cache_directory() / FILE, _holding_for(), figures)
        return costs

    @classmethod
    def unmeasured(
        cls, architecture: Architecture, schemes: Sequence[Scheme], threads: int | None, rotated: bool, activations: str
    ) -> list[Scheme]:
        """Those that `measured` would have to measure."""
        costs, _ = cls._kept(architecture, threads, activations)
        return [scheme for scheme in schemes if not costs.knows(scheme, rotated)]

    @classmethod
    def _kept(cls, architecture: Architecture, threads: int | None, activations: str) -> tuple[Self, dict[str, float]]:
        """What the cache has, and its figures, to which others can be added."""
        count = _native.fastest_threads() if threads is None else threads
        figures = read_figures(cache_directory() / FILE, _holding_for())
        return cls(machine_line(), count, _shape(architecture, count, activations), _shares(architecture), figures), figures

    @classmethod
    def read(
        cls, path: Path, architecture: Architecture, schemes: Sequence[Scheme], rotated: bool = True, activations: str = "int8"
    ) -> Self:
        """Those of another machine: its device_costs.json, of which the newest figures for this shape of model count.

        Raises `CostError` where a scheme or the shape is not in it.
        """
        try:
            machine = json.loads(path.read_text("utf-8"))["machine"]
            line = f"{machine['host']}: {machine['cpu']}, {machine['cores']} cores"
        except (OSError, ValueError, RecursionError, LookupError, TypeError) as fault:
            raise CostError(f"cannot read costs from {path}; it must be the {FILE} that the other machine wrote") from fault
        figures, beginning = read_figures(path, machine), f"{_shape_alone(architecture)}, "
        teams = [name[len(beginning) :].split(",")[0] for name in figures if name.startswith(beginning)]
        teams = [team for team in teams if team.endswith(_with(activations))]
        if not teams:
            raise CostError(
                f"{path} has no costs for {_shape_alone(architecture)}{_with(activations)}; plan this model once on that machine"
            )
        count, _, isa = teams[-1].partition(" threads of ")
        costs = cls(
            f"{line}, {isa.removesuffix(_with(activations))}", int(count), beginning + teams[-1], _shares(architecture), figures
        )
        for scheme in schemes:
            if not costs.knows(scheme, rotated):
                raise CostError(
                    f"{path} has no costs of {scheme} for {costs.shape}; name it in --schemes to a plan on that machine"
                )
        return costs

    def knows(self, scheme: Scheme, rotated: bool = True) -> bool:
        """Whether the scheme was measured."""
        return self._name("decode", scheme, rotated, "head") in self.figures

    def decode_seconds(self, scheme: Scheme, shape: Sequence[int], rotated: bool = True) -> float:
        """Of one matrix (outputs, inputs) for one token, batch 1. Raises `CostError` for what was not measured.

        A matrix that is only looked up, as an embedding that is not the head, takes none of it.
        """
        return self._seconds("decode", scheme, shape, rotated)

    def prefill_seconds(self, scheme: Scheme, shape: Sequence[int], rows: int, rotated: bool = True) -> float:
        """Of one matrix for a prompt of `rows` tokens; of the head, which takes the last token alone, as `decode_seconds`."""
        one = self._seconds("decode", scheme, shape, rotated)
        if self._stages(shape)[0][0] == "head":
            return one
        return max(one, self._seconds("prefill", scheme, shape, rotated) * rows / PROMPT)

    def other_seconds(self, architecture: Architecture, context: int, kv_cache: str = "fp16") -> float:
        """Of one token that sees `context` tokens: all that is no matrix product."""
        return self.attention_seconds(architecture, context, kv_cache) + self._figure(f"{self.shape}, rest")

    def attention_seconds(self, architecture: Architecture, context: int, kv_cache: str = "fp16") -> float:
        """Of one token that sees `context` tokens, in all layers: a line between and beyond the depths that were timed."""
        shallow, deep = (self._figure(f"{self.shape}, attention of {kv_cache} {depth}") for depth in ("near", "far"))
        near, far = (self._figure(f"{self.shape}, positions {depth}") for depth in ("near", "far"))
        slope = (deep - shallow) / (far - near)
        seen = (min(context, window or context) for window in architecture.window_of_layer)
        return sum(max(0.0, shallow + slope * (positions - near)) for positions in seen)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the figures of this shape."""
        mine = {name: seconds for name, seconds in self.figures.items() if name.startswith(f"{self.shape}, ")}
        return {"machine": self.machine, "threads": self.threads, "shape": self.shape, "seconds": mine}

    def _seconds(self, kind: str, scheme: Scheme, shape: Sequence[int], rotated: bool) -> float:
        """The mean over the stages that have such a matrix: a layer has one in each."""
        parts = [share * self._figure(self._name(kind, scheme, rotated, stage)) for stage, share in self._stages(shape)]
        return sum(parts) / len(parts)

    def _stages(self, shape: Sequence[int]) -> tuple[tuple[str, float], ...]:
        key = (int(shape[0]), int(shape[-1]))
        if key not in self.shares:
            known = ", ".join(f"{rows} x {columns}" for rows, columns in self.shares)
            raise CostError(f"no costs of a matrix of {key[0]} x {key[1]} for {self.shape}; it has {known}")
        return self.shares[key]

    def _figure(self, name: str) -> float:
        if name not in self.figures:
            raise CostError(f"{name!r} was not measured; name its scheme to DeviceCosts.measured")
        return self.figures[name]

    def _name(self, kind: str, scheme: Scheme, rotated: bool, stage: str) -> str:
        return f"{self.shape}, {kind} {stage} of {scheme}{' rotated' if rotated and scheme.scaled else ''}"

    def _measure(
        self, architecture: Architecture, schemes: Sequence[Scheme], rotated: bool, activations: str, progress: Progress | None
    ) -> dict[str, float]:
        """All of them in turn, ROUNDS times; memory holds a stand-in of each."""
        engines, layers = list[Engine](), 0
        steps, total = itertools.count(1), (1 + ROUNDS) * len(schemes)

        def told() -> None:
            if progress is not None:
                progress(next(steps), total)

        for scheme in schemes:
            stand_in = StandIn(architecture, scheme, rotated)
            layers = stand_in.architecture.layers
            engines.append(stand_in_engine(stand_in, self.threads, activations))
            told()
        decodes: list[list[dict[str, float]]] = [[] for _ in schemes]
        prefills: list[list[dict[str, float]]] = [[] for _ in schemes]
        beside: list[list[float]] = [[] for _ in schemes]  # what the first took just before each
        for _ in range(ROUNDS):
            for number, engine in enumerate(engines):
                beside[number].append(sum(stage_times(engines[0], SHALLOW).values()))
                decodes[number].append(stage_times(engine, SHALLOW))
                prefills[number].append(_prefill(engine))
                told()
        prefill, best = [_least(rounds) for rounds in prefills], min(map(min, beside))
        decode = [_scaled(rounds, firsts, best) for rounds, firsts in zip(decodes, beside, strict=True)]
        figures = {}
        for number, scheme in enumerate(schemes):
            for stage in STAGES:
                each = 1 if stage == "head" else layers
                figures[self._name("decode", scheme, rotated, stage)] = decode[number][stage] / each
                figures[self._name("prefill", scheme, rotated, stage)] = prefill[number][stage] / each
        if f"{self.shape}, rest" in self.figures:
            return figures
        rest = min(each["embedding"] + each["rest"] for each in decode)
        return figures | {f"{self.shape}, rest": rest} | self._attention(engines[0], layers)

    def _attention(self, engine: Engine, layers: int) -> dict[str, float]:
        """Seconds of attention in a layer at two depths, for each type of cache, and the depths."""
        far = engine.context - BURST
        near = min(SHALLOW, far // 2)
        figures = {f"{self.shape}, positions {name}": depth + (BURST + 1) / 2 for name, depth in (("near", near), ("far", far))}
        for kv_cache in CACHES:
            for name, depth in (("near", near), ("far", far)):
                seconds = stage_times(engine, depth, kv_cache)["attention"]
                figures[f"{self.shape}, attention of {kv_cache} {name}"] = seconds / layers
        return figures


def stand_in_engine(stand_in: StandIn | MixedStandIn, threads: int, activations: str) -> Engine:
    """As all stand-ins are run."""
    context = min(stand_in.architecture.context_length, DEEP + BURST)
    return Engine(stand_in, Options(threads, context, activations))  # type: ignore[arg-type]


def token_time(engine: Engine, depth: int) -> float:
    """Seconds of one decoded token that sees `depth` others: the median of some."""
    return float(np.median([sum(step.values()) for step in _bursts(engine, depth, "fp16")]))


def prompt_time(engine: Engine, tokens: int) -> float:
    """Seconds of a prompt of so many tokens: the median of a few."""
    ids = np.zeros(tokens, np.int32)
    return float(np.median([sum(_step(engine, lambda: engine.prefill(ids)).values()) for _ in range(PROMPTS)]))


def stage_times(engine: Engine, depth: int, kv_cache: str = "fp16") -> dict[str, float]:
    """Seconds of one token that sees `depth` others, in all layers, by stage; `rest` is what it takes beside all stages."""
    return _middle(_bursts(engine, depth, kv_cache))


def _bursts(engine: Engine, depth: int, kv_cache: str) -> list[dict[str, float]]:
    """The same of each of many tokens."""
    sequence = engine.new_sequence(kv_cache)
    zeros = np.zeros(sequence.native.cache_bytes(depth), np.uint8)
    steps = []
    for _ in range(BURSTS):
        sequence.rewind(0)
        sequence.native.restore(depth, zeros)
        sequence.tokens.extend([0] * depth)
        steps += [_step(engine, lambda: engine.read([(sequence, [0])])) for _ in range(BURST)]
    return steps


def _prefill(engine: Engine) -> dict[str, float]:
    """Seconds of a prompt of PROMPT tokens, in all layers, by stage; a shorter context is scaled up."""
    tokens = np.zeros(min(PROMPT, engine.context), np.int32)
    step = _step(engine, lambda: engine.prefill(tokens))
    return {name: seconds * PROMPT / len(tokens) for name, seconds in step.items()}


def _step(engine: Engine, work: Callable[[], object]) -> dict[str, float]:
    before, begin = engine.stage_seconds, time.perf_counter()
    work()
    seconds, after = time.perf_counter() - begin, engine.stage_seconds
    spent = {name: after[name] - before[name] for name in after}
    return spent | {"rest": seconds - sum(spent.values())}


def _middle(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.median([step[name] for step in steps])) for name in steps[0]}


def _least(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """The round that took least in all."""
    return min(rounds, key=lambda each: sum(each.values()))


def _scaled(rounds: Sequence[dict[str, float]], beside: Sequence[float], best: float) -> dict[str, float]:
    """The same, in all so many times `best` as the median round took of what was timed beside it."""
    least = _least(rounds)
    ratio = float(np.median([sum(each.values()) / first for each, first in zip(rounds, beside, strict=True)]))
    return {stage: seconds * ratio * best / sum(least.values()) for stage, seconds in least.items()}


def _shares(architecture: Architecture) -> dict[tuple[int, int], tuple[tuple[str, float], ...]]:
    """Shape of a matrix -> the stages that multiply one, and its share of each."""
    shapes = role_shapes(architecture)
    shares: dict[tuple[int, int], list[tuple[str, float]]] = {}
    for stage, roles in STAGES.items():
        rows = sum(shapes[role][0] for role in roles)
        for role in roles:
            shares.setdefault(shapes[role], []).append((stage, shapes[role][0] / rows))
    for stage in KEPT_TOGETHER.values():
        rows, columns = sum(shapes[role][0] for role in STAGES[stage]), shapes[STAGES[stage][0]][1]
        shares.setdefault((rows, columns), [(stage, 1.0)])
    return {shape: tuple(parts) for shape, parts in shares.items()}


def _shape(architecture: Architecture, threads: int, activations: str) -> str:
    """What figures depend on beside the scheme, as the beginning of their names."""
    return f"{_shape_alone(architecture)}, {threads} threads of {_native.isa()}{_with(activations)}"


def _with(activations: str) -> str:
    return f" with {activations} activations"


def _shape_alone(architecture: Architecture) -> str:
    """The same without what is of the machine."""
    a = architecture
    heads = f"{a.heads}/{a.kv_heads} heads of {a.head_dim}"
    sizes = f"{a.layers} layers of {a.hidden_size} and {a.intermediate_size}, {heads}, {a.vocab_size} words"
    return f"{sizes}, context {min(a.context_length, DEEP + BURST)}"


def _holding_for() -> dict[str, Any]:
    """The machine, and the build of the engine."""
    return identity() | {"engine": f"{__version__}, {Path(_native.__file__).stat().st_mtime_ns}"}


def machine_line() -> str:
    """This machine and the engine's instruction set, for people."""
    machine = identity()
    return f"{machine['host']}: {machine['cpu']}, {machine['cores']} cores, {_native.isa()}"


def token_seconds(costs: DeviceCosts, model: LanguageModel, context: int, kv_cache: str = "fp16") -> float:
    """What decoding one token of a stored model should take, with `context` tokens seen. Raises `CostError`."""
    shapes = role_shapes(model.architecture)
    total = costs.other_seconds(model.architecture, context, kv_cache)
    for (role, _), part in model.roles().items():
        if role in shapes:
            for scheme, rotated, share in rows_stored_as(model, part.name):
                total += share * costs.decode_seconds(scheme, shapes[role], rotated)
    return total


def schemes_of(model: LanguageModel) -> dict[bool, list[Scheme]]:
    """The schemes of a stored model's matrices, those whose columns are rotated and the others."""
    found: dict[bool, dict[Scheme, None]] = {}
    shapes = role_shapes(model.architecture)
    for (role, _), part in model.roles().items():
        if role in shapes:
            for scheme, rotated, _ in rows_stored_as(model, part.name):
                found.setdefault(rotated, {})[scheme] = None
    return {rotated: list(schemes) for rotated, schemes in found.items()}


def rows_stored_as(model: LanguageModel, name: str) -> Iterator[tuple[Scheme, bool, float]]:
    """(scheme, whether columns are rotated, share of the rows) of each way in which rows of a matrix are stored."""
    stored = model.stored(name)
    for block in stored_blocks(stored):
        scheme, rotated = (block.scheme, block.rotation > 0) if isinstance(block, Packed) else (Scheme(block.dtype), False)
        yield scheme, rotated, block.shape[0] / stored.shape[0]
