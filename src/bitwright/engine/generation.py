"""The loops that write: read the prompt, pick a token, read it, pick the next. One sequence, or several at once.

Several sequences share every step: the weights are decoded once for all of them. What each writes is what it would write
alone, token for token.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bitwright import _native
from bitwright.engine.lookup import Guesser
from bitwright.engine.sequence import Sequence
from bitwright.errors import ContextError, EngineError, NonFiniteError

if TYPE_CHECKING:
    from bitwright.engine import Engine


Floats = npt.NDArray[np.float32]

LONGEST_GUESS = 32


@dataclass(frozen=True)
class Sampling:
    """How tokens are picked and when to end. The defaults are greedy.

    `top_k` 0 and `top_p` 1 keep all tokens; `min_p` is a share of the likeliest token's probability. `stop` strings
    are for whoever turns tokens into text. `overflow`: at a full context, "error" or "slide": keep the later half.
    `lookup`: up to so many tokens are guessed at a step from the text so far (0: none); the answer stays the same.
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
    lookup: int = 0

    def __post_init__(self) -> None:
        rules = {
            "max_tokens": (self.max_tokens >= 0, "at least 0"),
            "temperature": (0 <= self.temperature < float("inf"), "0 (greedy) or more"),
            "top_k": (self.top_k >= 0, "0 (all) or more"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "min_p": (0 <= self.min_p <= 1, "from 0 to 1"),
            "repetition_penalty": (0 < self.repetition_penalty < float("inf"), "above 0; 1 is none"),
            "seed": (0 <= self.seed < 2**64, "from 0 to 2^64 - 1"),
            "lookup": (0 <= self.lookup <= LONGEST_GUESS, f"0 (none) to {LONGEST_GUESS}"),
            "overflow": (self.overflow in ("error", "slide"), "error or slide"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise EngineError(f"{name} must be {rule}, not {getattr(self, name)!r}")


class Writer:
    """One answer being written: its tokens, and those that must be read before the next one can be drawn."""

    def __init__(self, engine: Engine, sequence: Sequence, prompt: Items[int], sampling: Sampling) -> None:
        """Raises `ContextError` where the prompt is empty or does not fit and `overflow` is "error"."""
        check_prompt(prompt, sequence.context, sampling)
        self.sequence, self.sampling = sequence, sampling
        self.tokens = [int(token) for token in prompt]
        self.left = sampling.max_tokens
        self._eos_ids = engine.eos_ids if sampling.max_tokens else frozenset()
        self._sampler = _native.Sampler(
            sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p, sampling.repetition_penalty, sampling.seed
        )
        fitting = self.tokens if len(self.tokens) <= sequence.context else self._latest()
        self.unread = fitting[sequence.keep_common(fitting) :]

    def draw(self, logits: Floats) -> int | None:
        """The next token, or None at the end of the text. It becomes what must be read."""
        try:
            token: int = self._sampler.pick(logits, self.tokens if self.sampling.repetition_penalty != 1.0 else [])
        except ValueError as fault:
            raise NonFiniteError(f"the model computed NaN or infinity ({fault}); its weights are damaged") from fault
        if token in self._eos_ids:
            return None
        self.tokens.append(token)
        self.unread = [token]
        self.left -= 1
        return token

    def make_room(self) -> None:
        """At a full context, refuse, or begin the sequence again with the later half of the text."""
        if self.sequence.position + len(self.unread) <= self.sequence.context:
            return
        if self.sampling.overflow == "error":
            full = f"the context of {self.sequence.context} tokens is full"
            raise ContextError(f"{full}; raise --context or pass --overflow slide")
        self.sequence.rewind(0)
        self.unread = self._latest()

    def _latest(self) -> list[int]:
        return self.tokens[-max(1, self.sequence.context // 2) :]


def generate(engine: Engine, prompt: Items[int], sampling: Sampling) -> Iterator[int]:
    """Tokens, one at a time, up to `max_tokens` or the model's end of text, which is not given out.

    What the engine's sequence shares with the prompt is not read again. Raises `ContextError` where the prompt is empty, or
    where prompt and answer do not fit and `overflow` is "error".
    """
    writer = Writer(engine, engine.sequence, prompt, sampling)
    guesser = Guesser(sampling.lookup)
    while writer.left:
        writer.make_room()
        room = writer.sequence.context - writer.sequence.position - len(writer.unread)
        room = min(room, engine.same_setting(writer.sequence, len(writer.unread)))
        guess = guesser.guess(writer.tokens, min(room, writer.left - 1))
        single, begin, drawn = len(writer.unread) == 1, time.perf_counter(), 0
        rows = engine.read_rows(writer.sequence, [*writer.unread, *guess], 1 + len(guess))
        seconds, kept = time.perf_counter() - begin, writer.sequence.position - len(guess)
        try:
            for row, guessed in zip(rows, [*guess, None], strict=True):
                token = writer.draw(row)
                if token is None:
                    return
                drawn += 1
                yield token
                if token != guessed or not writer.left:
                    break
        finally:  # the last token drawn counts as unread, even where it was guessed
            writer.sequence.rewind(kept + max(0, drawn - 1))
        if single:
            guesser.book(seconds, len(guess), drawn)


def generate_batch(
    engine: Engine, prompts: Items[Items[int]], samplings: Items[Sampling], at_once: int
) -> Iterator[tuple[int, int]]:
    """(number of the prompt, token) as tokens are written, `at_once` answers at a time; one that ends makes room for the next.

    Each answer is what `generate` would write alone. Raises `ContextError` before the first token for a prompt that is empty
    or does not fit.
    """
    for prompt, sampling in zip(prompts, samplings, strict=True):
        check_prompt(prompt, engine.context, sampling)
    waiting = deque((i, *asked) for i, asked in enumerate(zip(prompts, samplings, strict=True)) if asked[1].max_tokens)
    writing: list[tuple[int, Writer]] = []
    while waiting or writing:
        while waiting and len(writing) < at_once:
            number, prompt, sampling = waiting.popleft()
            writing.append((number, Writer(engine, engine.new_sequence(), prompt, sampling)))
        for _, writer in writing:
            writer.make_room()
        rows = engine.read([(writer.sequence, writer.unread) for _, writer in writing])
        going = []
        for (number, writer), row in zip(writing, rows, strict=True):
            token = writer.draw(row)
            if token is not None:
                yield number, token
                if writer.left:
                    going.append((number, writer))
        writing = going


def check_prompt(prompt: Items[int], context: int, sampling: Sampling) -> None:
    """Raises `ContextError` for a prompt without tokens, or one that does not fit and may not slide."""
    if len(prompt) == 0:
        raise ContextError("the prompt has no tokens; write at least one word")
    if len(prompt) > context and sampling.overflow == "error":
        raise ContextError(
            f"the prompt has {len(prompt)} tokens and the context holds {context};"
            " shorten it, raise --context or pass --overflow slide"
        )
