"""The loop that writes: read the prompt, pick a token, read it, pick the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bitwright import _native
from bitwright.errors import ContextError, EngineError

if TYPE_CHECKING:
    from bitwright.engine import Engine


@dataclass(frozen=True)
class Sampling:
    """How tokens are picked and when to end. The defaults are greedy.

    `top_k` 0 and `top_p` 1 keep all tokens; `min_p` is a share of the likeliest token's probability. `stop` strings
    are for whoever turns tokens into text. `overflow`: at a full context, "error" or "slide": keep the later half.
    """

    max_tokens: int = 64
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    overflow: str = "error"

    def __post_init__(self) -> None:
        rules = {
            "max_tokens": (self.max_tokens >= 0, "at least 0"),
            "temperature": (0 <= self.temperature < float("inf"), "0 (greedy) or more"),
            "top_k": (self.top_k >= 0, "0 (all) or more"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (0 <= self.min_p <= 1, "from 0 to 1"),
            "repetition_penalty": (0 < self.repetition_penalty < float("inf"), "above 0; 1 is none"),
            "seed": (0 <= self.seed < 2**64, "from 0 to 2^64 - 1"),
            "overflow": (self.overflow in ("error", "slide"), "error or slide"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise EngineError(f"{name} must be {rule}, not {getattr(self, name)!r}")


def generate(engine: Engine, prompt: Sequence[int], sampling: Sampling) -> Iterator[int]:
    """Tokens, one at a time, up to `max_tokens` or the model's end of text, which is not given out.

    Raises `ContextError` where the prompt is empty, or where prompt and answer do not fit and `overflow` is "error".
    """
    tokens = [int(token) for token in prompt]
    if not tokens:
        raise ContextError("the prompt has no tokens; write at least one word")
    if len(tokens) > engine.context and sampling.overflow == "error":
        raise ContextError(
            f"the prompt has {len(tokens)} tokens and the context holds {engine.context};"
            " shorten it, raise --context or pass --overflow slide"
        )
    sampler = _native.Sampler(
        sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p, sampling.repetition_penalty, sampling.seed
    )
    logits = engine.prefill(tokens if len(tokens) <= engine.context else latest(tokens, engine.context))
    for written in range(sampling.max_tokens):
        token = sampler.pick(logits, tokens if sampling.repetition_penalty != 1.0 else [])
        if token in engine.eos_ids:
            return
        tokens.append(token)
        yield token
        if written + 1 == sampling.max_tokens:
            return
        logits = _read(engine, tokens, sampling)


def latest(tokens: Sequence[int], context: int) -> list[int]:
    """The later half of a context's worth of tokens: what a sliding context keeps."""
    return list(tokens[-max(1, context // 2) :])


def _read(engine: Engine, tokens: Sequence[int], sampling: Sampling) -> np.ndarray:
    """Logits after the last token; a full context is refused, or read again from its later half."""
    if engine.position < engine.context:
        return engine.decode(tokens[-1])
    if sampling.overflow == "error":
        raise ContextError(f"the context of {engine.context} tokens is full; raise --context or pass --overflow slide")
    return engine.prefill(latest(tokens, engine.context))
