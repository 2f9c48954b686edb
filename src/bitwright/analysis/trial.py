"""A plan that was made: the artifact as `quantize` writes it, and everything about it that can be measured rather than foretold.

    bytes       of all files                         divergence       mean KL on text for the proof, with its interval
    seconds     of one decoded token                 loss_reference   the model's own loss on that text: log of its perplexity
    prefill     of a prompt of PROMPT tokens         loss_added       what the plan adds to it, with its interval
    ram         peak of a process that fills         kl_p99, kl_max   of KL on that text: what 1 % of tokens exceed, and its most
                the context                          top1_agreement   share of its tokens where the likeliest next one is the same
    slowness    of this machine at that time,        flips            share where it is another
                against when its costs               climbing         mean KL on other text, by which plans are compared
                were measured                        task             what a task lost

Plans are compared on one text and proved on another: the least of several measured losses is partly luck, and that luck
would be in the proof.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bitwright.allocation.budget import PROMPT
from bitwright.allocation.device import prompt_time, token_time
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
TIMED = 16  # times that speed is measured


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
    saved = made.save(output)
    measured = {"bytes": float(sum(path.stat().st_size for path in output.rglob("*") if path.is_file()))}
    texts = [*held.proof, *held.climbing]
    with watch(what) as progress:
        scores = list(measure(saved, held.model, texts, _run(saved, texts), lambda done, all: progress(done, 2 * all)))
        measured |= _speed(saved, held, mix)
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


def _speed(saved: ArtifactModel, held: Examination, mix: Mix | None) -> dict[str, float]:
    """Seconds of a token at DEPTH and of a prompt; where its speed was foretold, how slow the machine was: the stand-in is timed
    in turn with the model, and the median of their ratios says what the stand-in took in the model's best moment.
    """
    context = min(saved.architecture.context_length, max(PROMPT, 2 * DEPTH))
    activations = resolved(saved.runtime)[0].activations if saved.runtime else "int8"
    engine = Engine.load(saved, threads=held.running.threads, context=context, activations=activations)
    depth = min(DEPTH, context // 2)
    seconds, ratios = [], []
    for _ in range(TIMED):
        seconds.append(token_time(engine, depth))
        ratios += [] if mix is None else [seconds[-1] / mix.slowness()]
    found = {"seconds": min(seconds), "prefill": prompt_time(engine, min(PROMPT, context))}
    return found | ({"slowness": min(seconds) / float(np.median(ratios))} if ratios else {})
