"""A plan that was made: the artifact as `quantize` writes it, and everything about it that can be measured rather than foretold.

    bytes       of all files                         divergence       mean KL on text for the proof, with its interval
    seconds     of one decoded token                 loss_reference   the model's own loss on that text: log of its perplexity
    prefill     of a prompt of PROMPT tokens         loss_added       what the plan adds to it, with its interval
    ram         peak of a process that fills         kl_p99, kl_max   of KL on that text: what 1 % of tokens exceed, and its most
                the context                          top1_agreement   share of its tokens where the likeliest next one is the same
    slowness    of this machine at that time,        flips            share where it is another
                against when its costs               climbing         mean KL on other text, by which plans are compared
                were measured; of prompts            task             what a task lost
                (prefill_slowness), against when the plan's stand-in was timed
    joules      of one decoded token, where the processor counts them (allocation/energy.py)

Plans are compared on one text and proved on another: the least of several measured losses is partly luck, and that luck
would be in the proof.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bitwright.allocation.budget import PROMPT
from bitwright.allocation.device import prompt_time, token_time
from bitwright.allocation.energy import Meter
from bitwright.allocation.memory import Running, true_peak
from bitwright.allocation.mix import Mix
from bitwright.analysis.evaluate import figures, joined, measure
from bitwright.analysis.tasks.paired import Drop, Scored, task_drop
from bitwright.artifact import ArtifactModel
from bitwright.calibration.text import Watch
from bitwright.engine import Engine
from bitwright.models.base import LanguageModel
from bitwright.quantization import QuantizedModel
from bitwright.runtime import resolved

Floats = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]
Task = Callable[[LanguageModel], Scored]

# Quantities that are figures of the model's answers, by their names in `Evaluation`; all but a maximum have an interval
ANSWERS = {"divergence": "kl_mean"} | {
    name: name for name in ("kl_p99", "kl_max", "top1_agreement", "flips", "loss_reference", "loss_added")
}
DEPTH = 128  # tokens of context at which speed is foretold and measured
TIMED, TIMED_PROMPTS = 16, 3  # times that the speed of a token and of a prompt is measured
METERED, METERED_TOKENS = 3, 64  # times that energy is counted, of so many tokens: counters move once a millisecond


@dataclass(frozen=True)
class Examination:
    """What a made plan is held against: the model, texts for the proof and for comparing, how it is run, a task if any."""

    model: LanguageModel
    proof: Sequence[Tokens]
    climbing: Sequence[Tokens]
    running: Running
    task: Task | None = None


@dataclass(frozen=True)
class Trial:
    """`measured` by quantity, `intervals` of those that have one; `saved` lives in `directory`, which goes with the trial."""

    saved: ArtifactModel
    measured: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    climbing: float
    drop: Drop | None
    directory: tempfile.TemporaryDirectory[str]


def tried(made: QuantizedModel, held: Examination, mix: Mix | None, what: str, watch: Watch) -> Trial:
    """Make `made` and measure it; `mix` is its stand-in, where this machine's speed was foretold.

    Raises what `save` and `measure` raise.
    """
    directory = tempfile.TemporaryDirectory(prefix="bitwright-plan-")
    output = Path(directory.name) / "artifact"
    made.calibrate(output, watch)
    texts = [*held.proof, *held.climbing]
    with watch(what) as progress:
        saved = made.save(output)
        measured = {"bytes": float(sum(path.stat().st_size for path in output.rglob("*") if path.is_file()))}
        scores = list(measure(saved, held.model, texts, _run(saved, texts), lambda done, all: progress(done, 2 * all)))
        engine, depth = _engine(saved, held)
        measured |= _speed(engine, depth, mix) | _energy(engine, depth, Meter.of_this_machine())
        progress(3, 4)
        measured["ram"] = float(true_peak(output, held.running))
    proof = scores[: len(held.proof)]
    found = figures(joined(iter(proof)), [len(window) - 1 for window in held.proof], paired=True)
    climbing = float(np.mean([score.kl.mean() for score in scores[len(proof) :]]))
    measured |= {quantity: found[name] for quantity, name in ANSWERS.items()}
    intervals = {quantity: found[f"{name}_interval"] for quantity, name in ANSWERS.items() if f"{name}_interval" in found}
    drop = None if held.task is None else task_drop(saved, held.model, held.task)
    return Trial(saved, measured, intervals, climbing, drop, directory)


def _run(saved: ArtifactModel, texts: Sequence[Tokens]) -> str | Iterator[Floats]:
    """As the engine runs it; where the KV cache narrows as a text grows, as if it had from the start: the loss at its worst."""
    if not saved.runtime:
        return "int8"
    last = resolved(saved.runtime)[-1]
    engine = Engine.load(saved, context=max(map(len, texts)), activations=last.activations, kv_cache=last.kv_cache)
    return (engine.hidden(window[:-1]) for window in texts)


def _engine(saved: ArtifactModel, held: Examination) -> tuple[Engine, int]:
    """As the plan begins to run, and the tokens of context at which it is timed: DEPTH, or fewer where it has not so many."""
    context = min(saved.architecture.context_length, max(PROMPT, 2 * DEPTH))
    activations = resolved(saved.runtime)[0].activations if saved.runtime else "int8"
    engine = Engine.load(saved, threads=held.running.threads, context=context, activations=activations)
    return engine, min(DEPTH, context // 2)


def _speed(engine: Engine, depth: int, mix: Mix | None) -> dict[str, float]:
    """Seconds of a token and of a prompt, the least of several; where its speed was foretold, how slow the machine was: the
    stand-in is timed in turn with the model, and the median of their ratios says what it took in the model's best moment.
    """
    token, prompt = partial(token_time, engine, depth), partial(prompt_time, engine, min(PROMPT, engine.context))
    if mix is None:
        return {"seconds": min(token() for _ in range(TIMED)), "prefill": min(prompt() for _ in range(TIMED_PROMPTS))}
    seconds, slowness = _beside(token, mix.slowness, TIMED)
    prefill, prefill_slowness = _beside(prompt, mix.prompt_slowness, TIMED_PROMPTS)
    return {"seconds": seconds, "prefill": prefill, "slowness": slowness, "prefill_slowness": prefill_slowness}


def _beside(work: Callable[[], float], slowness: Callable[[], float], times: int) -> tuple[float, float]:
    """The least that `work` took, and how slow the machine was then, by what is timed in turn with it."""
    taken = [(work(), slowness()) for _ in range(times)]
    least = min(seconds for seconds, _ in taken)
    return least, least / float(np.median([seconds / slow for seconds, slow in taken]))


def _energy(engine: Engine, depth: int, meter: Meter | None) -> dict[str, float]:
    """Joules of a token by the processor's counters, the median of some readings; nothing where it has none that may be read."""
    if meter is None:
        return {}
    tokens, taken = min(METERED_TOKENS, engine.context - depth), list[float]()
    for _ in range(METERED):
        engine.prefill(np.zeros(depth, np.int32))
        before = meter.read()
        for _ in range(tokens):
            engine.decode(0)
        taken.append(meter.joules(before, meter.read()) / tokens)
    return {"joules": float(np.median(taken))}
