"""Text out of the engine as it is made: tokens to characters, stop strings, and the words around a prompt."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitwright.models.base import LanguageModel
    from bitwright.models.tokenizer import Tokenizer


@dataclass
class Clock:
    """Counts tokens and notes when the first and the last of them came, in seconds after `begin`."""

    begin: float = field(default_factory=time.perf_counter)
    tokens: int = 0
    first: float = 0.0
    last: float = 0.0

    def watch(self, tokens: Iterable[int]) -> Iterator[int]:
        """The same tokens, counted on their way."""
        for token in tokens:
            self.last = time.perf_counter() - self.begin
            self.first = self.first if self.tokens else self.last
            self.tokens += 1
            yield token

    def speeds(self, prompt_tokens: int) -> dict[str, float | None]:
        """Tokens per second of reading the prompt and of writing; None where there were too few to tell."""
        prefill = prompt_tokens / self.first if self.tokens else None
        decode = (self.tokens - 1) / (self.last - self.first) if self.tokens > 1 else None
        return {"prefill_tokens_per_s": prefill, "decode_tokens_per_s": decode}


def prompt_tokens(tokenizer: Tokenizer, prompt: str, raw: bool) -> list[int]:
    """The prompt as the user's turn of a conversation, or as it is: when `raw`, or for a model without a chat template."""
    if raw or tokenizer.chat_template is None:
        return tokenizer.encode(prompt)
    return tokenizer.encode(tokenizer.chat([{"role": "user", "content": prompt}]), add_special=False)


def read_prompt(model: LanguageModel, prompt: str, raw: bool) -> tuple[Tokenizer, list[int]]:
    """A model's tokenizer, and the prompt in its tokens."""
    tokenizer = model.tokenizer()
    return tokenizer, prompt_tokens(tokenizer, prompt, raw)


def text_of(tokens: Iterable[int], tokenizer: Tokenizer, stop: Sequence[str] = ()) -> Iterator[str]:
    """The text of tokens, piece by piece, up to the first of the `stop` strings, which is left out.

    Text that may turn out to be the beginning of a stop string waits until that is decided.
    """
    stream, waiting = tokenizer.stream(), ""
    for token in tokens:
        waiting += stream.push(token)
        found = [position for word in stop if (position := waiting.find(word)) >= 0]
        if found:
            yield waiting[: min(found)]
            return
        ready = len(waiting) - undecided(waiting, stop)
        if ready:
            yield waiting[:ready]
            waiting = waiting[ready:]
    rest = waiting + stream.finish()
    yield rest[: min((position for word in stop if (position := rest.find(word)) >= 0), default=len(rest))]


def undecided(text: str, stop: Sequence[str]) -> int:
    """Characters at the end of `text` that a stop string could begin with; the most, where several could."""
    lengths = [length for word in stop for length in range(1, len(word)) if text.endswith(word[:length])]
    return max(lengths, default=0)
