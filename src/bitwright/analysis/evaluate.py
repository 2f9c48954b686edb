"""What quantization lost: perplexity, KL divergence to the reference's token distribution, and top-1 agreement.

The text is cut into windows of `context` tokens without overlap. At each position t of a window but the first, with p
the reference's distribution of token t given the tokens before it in the window and q the model's,

    perplexity = exp(mean -log q(t)),    KL = sum_v p(v) log(p(v) / q(v)),    agreement = [argmax p = argmax q]

in nats over the whole vocabulary. The loss on the text is taken apart: -log q(t) = -log p(t), the reference's own, plus
log p(t) - log q(t), what quantization adds; analysis/token_kinds.py says on which tokens. The reference runs with 32-bit
activations and KV cache, the model as the engine runs it. Both heads are applied and compared in native code, a few rows at
a time: nobody holds the logits of a window.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bitwright.analysis import noise_floor
from bitwright.analysis.memory import peak_rss_bytes
from bitwright.analysis.reference_cache import HiddenCache, cache_key, hidden_states
from bitwright.analysis.scored_text import Tokens, read_text, windows_of
from bitwright.analysis.scores import Scores
from bitwright.analysis.significance import Doubles, Resampling, percentile_interval, quantile, resample, units_of_windows
from bitwright.analysis.token_kinds import Kind, by_kind
from bitwright.analysis.unseen import require_unseen
from bitwright.calibration.marks import remembered
from bitwright.errors import EngineError, NonFiniteError, TextError, TokenizerError

if TYPE_CHECKING:
    from bitwright.calibration.text import Source
    from bitwright.engine import Engine
    from bitwright.models.base import LanguageModel
from bitwright.runtime import ACTIVATIONS, CACHES, activations_of

Floats = npt.NDArray[np.float32]
Interval = tuple[float, float]
Progress = Callable[[int, int], None]

SCORED = tuple(field.name for field in fields(Scores))
FLIPS = ("flips", "flips_lost", "flips_gained")
# What needs a reference
PAIRED = (
    *("perplexity_reference", "perplexity_ratio", "loss_reference", "loss_added"),
    *("kl_mean", "kl_median", "kl_p99", "top1_agreement", *FLIPS),
)
WITHOUT_INTERVAL = ("kl_max", *(f"{name}_count" for name in FLIPS))


@dataclass(frozen=True)
class Evaluation:
    """The measured figures, each with its 95 % interval. Without a reference all but `perplexity` are None.

    KL and losses are in nats per token; `perplexity_ratio` is the model's perplexity over the reference's on the same tokens,
    `loss_added` its logarithm. `flips` is the share of positions where the likeliest token is another than the reference's,
    of which `flips_lost` had the reference right and `flips_gained` the model. `noise_floor_kl` is that of the reference in
    half precision (analysis/noise_floor.py), None where that overflows. A maximum has no interval: no bootstrap bounds one.
    `kinds` are None unless asked for. `tokens` counts scored positions; sizes are bytes, true bits per weight with scales and
    unquantized tensors counted.
    """

    perplexity: float
    perplexity_interval: Interval
    perplexity_reference: float | None
    perplexity_reference_interval: Interval | None
    perplexity_ratio: float | None
    perplexity_ratio_interval: Interval | None
    kl_mean: float | None
    kl_mean_interval: Interval | None
    kl_median: float | None
    kl_median_interval: Interval | None
    kl_p99: float | None
    kl_p99_interval: Interval | None
    top1_agreement: float | None
    top1_agreement_interval: Interval | None
    kl_max: float | None
    loss_reference: float | None
    loss_reference_interval: Interval | None
    loss_added: float | None
    loss_added_interval: Interval | None
    flips: float | None
    flips_interval: Interval | None
    flips_count: int | None
    flips_lost: float | None
    flips_lost_interval: Interval | None
    flips_lost_count: int | None
    flips_gained: float | None
    flips_gained_interval: Interval | None
    flips_gained_count: int | None
    noise_floor_kl: float | None
    noise_floor_kl_interval: Interval | None
    kinds: tuple[Kind, ...] | None
    tokens: int
    windows: int
    context: int
    activations: str
    kv_cache: str
    simulated: bool
    size_bytes: int
    bits_per_weight: float
    seconds: float
    peak_rss_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, by the public keys."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def evaluate(  # noqa: PLR0913 - the public face: every option by its name
    model: LanguageModel | str | Path,
    reference: LanguageModel | str | Path | None,
    text: str | Path,
    context: int = 512,
    tokens: int = 32768,
    activations: str = "",
    progress: Progress | None = None,
    allow_seen: bool = False,
    kinds: bool = False,
    calibration: str | Source = "self",
    kv_cache: str = "fp16",
) -> Evaluation:
    """Measure `model` against `reference` (or alone, with None) on the first `tokens` tokens of a text.

    `text` is a `Path` or the name of an existing file (UTF-8), else the text itself. `progress` is told (done, total) tokens.
    With `kinds`, which needs a reference, the losses are told apart by kinds of token.
    `activations` are int8, int16 or fp32, which the engine runs, or one of activations/kind.py, simulated in float; static scales
    come from `calibration` text. By default those of an artifact's recipe, the last of its runtime settings, and int8 else.
    `kv_cache` is fp32, fp16, int8 or int4; simulated activations have none to choose.
    Raises `TextError`, also where `model` was calibrated on this text (unless `allow_seen`), `TokenizerError` where the two
    do not read the text alike, `NonFiniteError` where logits are not finite, and whatever loading a model raises.
    """
    from bitwright.inspection import summary

    begin = time.perf_counter()
    if kv_cache not in CACHES:
        raise EngineError(f"unknown KV cache {kv_cache!r}; choose from {', '.join(CACHES)}")
    candidate, original = _loaded(model), None if reference is None else _loaded(reference)
    passage = read_text(text, tokens)
    windows = windows_of(candidate.tokenizer(), passage, context, tokens)
    if not allow_seen:
        require_unseen(windows, remembered(candidate))
    if original is not None:
        _require_same_reading(candidate, original, windows, windows_of(original.tokenizer(), passage, context, tokens))
    if kinds and original is None:
        raise TextError("kinds of token tell what quantization added to the reference's loss; give a reference (--reference)")
    hidden = None
    activations = activations or activations_of(candidate)
    if activations not in ACTIVATIONS:
        from bitwright.analysis.simulation import Simulation

        if kv_cache != "fp16":
            raise EngineError(
                f"activations {activations!r} are simulated with a cache of floats; leave out --kv-cache {kv_cache}"
            )
        hidden = Simulation(activations, calibration).hidden(candidate, original or candidate, windows, allow_seen)
    run = activations if hidden is None else hidden
    scores = joined(measure(candidate, original, windows, run, progress, kv_cache))
    size = summary(candidate)
    floor = _floor_figures(original, windows)
    return Evaluation(
        **figures(scores, [len(window) - 1 for window in windows], paired=original is not None),
        **floor,
        kinds=by_kind(scores, windows, candidate.tokenizer()) if kinds else None,
        tokens=len(scores.nll),
        windows=len(windows),
        context=context,
        activations=activations,
        kv_cache=kv_cache if hidden is None else "fp32",
        simulated=hidden is not None,
        size_bytes=size["size_bytes"],
        bits_per_weight=size["bits_per_weight"],
        seconds=time.perf_counter() - begin,
        peak_rss_bytes=peak_rss_bytes(),
    )


def measure(
    model: LanguageModel,
    reference: LanguageModel | None,
    windows: list[Tokens],
    run: str | Iterator[Floats],
    progress: Progress | None,
    kv_cache: str = "fp16",
) -> Iterator[Scores]:
    """The scores of each window in turn. Without a reference the model is compared with itself.

    `run` says how the engine holds activations; or it is what the model's head reads in each window, computed elsewhere.
    """
    from bitwright.engine import Engine

    context = max(len(window) for window in windows)
    engine = Engine.load(model, context=context, activations=run if isinstance(run, str) else "fp32", kv_cache=kv_cache)
    inputs = [window[:-1] for window in windows]
    found = map(engine.hidden, inputs) if isinstance(run, str) else run
    states: Iterator[Floats]
    if reference is None:
        judge, (states, found) = engine, tee(found)
    else:
        judge = Engine.load(reference, context=context, activations="fp32", kv_cache="fp32")
        identity = reference_identity(reference, judge.isa)
        states = hidden_states(inputs, judge.hidden, reference.architecture.hidden_size, identity, HiddenCache.from_environment())
    total, done = sum(map(len, inputs)), 0
    for window, expected, hidden in zip(windows, states, found, strict=True):
        yield _compare(judge, expected, engine, hidden, window)
        done += len(window) - 1
        if progress is not None:
            progress(done, total)


def figures(scores: Scores, window_sizes: list[int], paired: bool) -> dict[str, Any]:
    """Point estimates and intervals by field name of `Evaluation`, for windows of these many scored tokens."""
    draws = resample(units_of_windows(window_sizes))
    result: dict[str, Any] = _with_interval("perplexity", np.exp(scores.nll.mean()), np.exp(draws.means(scores.nll)))
    if not paired:
        return result | dict.fromkeys((*PAIRED, *(f"{name}_interval" for name in PAIRED), *WITHOUT_INTERVAL))
    reference, excess = scores.nll_reference, scores.nll - scores.nll_reference
    result |= _with_interval("perplexity_reference", np.exp(reference.mean()), np.exp(draws.means(reference)))
    result |= _with_interval("perplexity_ratio", np.exp(excess.mean()), np.exp(draws.means(excess)))
    result |= _with_interval("loss_reference", reference.mean(), draws.means(reference))
    result |= _with_interval("loss_added", excess.mean(), draws.means(excess))
    result |= _with_interval("top1_agreement", scores.agree.mean(), draws.means(scores.agree))
    return result | _kl_figures(scores.kl, draws) | _flip_figures(scores, draws)


def reference_identity(reference: LanguageModel, isa: str) -> list[str]:
    """All that the reference's hidden states depend on, beside the tokens: the weights, and the program that runs them."""
    from bitwright import _native

    program = Path(str(_native.__file__)).stat()
    return [reference.fingerprint(), isa, "fp32", f"{program.st_size}.{program.st_mtime_ns}"]


def is_reference_kept(reference: LanguageModel, windows: Sequence[Tokens]) -> bool:
    """Whether `measure` ran the reference on these windows before, and need not run it again."""
    from bitwright import _native

    inputs = [window[:-1] for window in windows]
    key = cache_key(reference_identity(reference, str(_native.isa())), inputs)
    shape = (sum(map(len, inputs)), reference.architecture.hidden_size)
    return HiddenCache.from_environment().find(key, shape) is not None


def _kl_figures(kl: Doubles, draws: Resampling) -> dict[str, Any]:
    median, p99 = draws.quantiles(kl, (0.5, 0.99))
    return (
        _with_interval("kl_mean", kl.mean(), draws.means(kl))
        | _with_interval("kl_median", quantile(kl, 0.5), median)
        | _with_interval("kl_p99", quantile(kl, 0.99), p99)
        | {"kl_max": float(kl.max())}
    )


def _flip_figures(scores: Scores, draws: Resampling) -> dict[str, Any]:
    """Where the likeliest token changed: in all, from the right one, to the right one."""
    flips = 1 - scores.agree
    kinds = {"flips": flips, "flips_lost": flips * scores.right_reference, "flips_gained": flips * scores.right}
    result: dict[str, Any] = {}
    for name, flipped in kinds.items():
        result |= _with_interval(name, flipped.mean(), draws.means(flipped)) | {f"{name}_count": int(flipped.sum())}
    return result


def _floor_figures(reference: LanguageModel | None, windows: list[Tokens]) -> dict[str, Any]:
    """KL of the reference in half precision to itself in single, both as the slow twin computes them, on the text's beginning."""
    kl = None if reference is None else noise_floor.divergence(reference, windows[0])
    if kl is None:
        return {"noise_floor_kl": None, "noise_floor_kl_interval": None}
    return _with_interval("noise_floor_kl", kl.mean(), resample(units_of_windows([len(kl)])).means(kl))


def _with_interval(name: str, estimate: float, replicates: Doubles) -> dict[str, Any]:
    return {name: float(estimate), f"{name}_interval": percentile_interval(replicates)}


def _compare(judge: Engine, expected: Floats, engine: Engine, hidden: Floats, window: Tokens) -> Scores:
    found = engine.compare(expected, judge, hidden, window[1:])
    scores = Scores(**{field: np.asarray(getattr(found, field), np.float64) for field in SCORED})
    bad = int((~np.isfinite(scores.nll + scores.kl)).sum())
    if bad:
        raise NonFiniteError(f"logits are NaN or infinite at {bad} of {len(scores.nll)} positions; check the model's weights")
    # KL is never negative; rounding can make the sum of a distribution compared with itself so
    return replace(scores, kl=np.maximum(scores.kl, 0.0))


def joined(parts: Iterator[Scores]) -> Scores:
    every = list(parts)
    return Scores(**{name: np.concatenate([getattr(part, name) for part in every]) for name in SCORED})


def _require_same_reading(model: LanguageModel, reference: LanguageModel, windows: list[Tokens], expected: list[Tokens]) -> None:
    sizes = model.architecture.vocab_size, reference.architecture.vocab_size
    if sizes[0] != sizes[1]:
        raise TokenizerError(
            f"vocabularies of {sizes[0]} and {sizes[1]} tokens cannot be compared; give the model's own reference"
        )
    if len(windows) != len(expected) or not all(map(np.array_equal, windows, expected)):
        raise TokenizerError("the model and the reference split this text into different tokens; give the model's own reference")


def _loaded(model: LanguageModel | str | Path) -> LanguageModel:
    from bitwright.models import load

    return load(model) if isinstance(model, str | Path) else model
