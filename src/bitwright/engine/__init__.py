"""The native engine: a thin face over C++, which runs the whole token step from embedding to logits.

Activations: "int8", the default, rounds them in blocks of 32, one scale a block; "int16" keeps 15 bits the same way;
"fp32" multiplies decoded weights by floats. Weights in full precision are always multiplied by floats.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from bitwright import _native
from bitwright.engine.generation import Sampling, generate
from bitwright.engine.weights import native_model
from bitwright.errors import ContextError, EngineError

if TYPE_CHECKING:
    from bitwright.models.base import LanguageModel

__all__ = ["ACTIVATIONS", "CACHES", "Comparison", "Engine", "Sampling"]

Floats = npt.NDArray[np.float32]
Tokens = Sequence[int] | npt.NDArray[np.int32]

ACTIVATIONS = ("int8", "int16", "fp32")
CACHES = ("fp16", "int8", "fp32")
DEFAULT_CONTEXT = 4096  # at most; a model's own limit where that is smaller


class Comparison(NamedTuple):
    """Row by row, in nats: divergence from the reference, loss of both on the next token, same likeliest token."""

    kl: Floats
    nll: Floats
    nll_reference: Floats
    agree: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Options:
    """`context` tokens at most in one sequence; `threads` None for all the cores this process may use."""

    threads: int | None = None
    context: int | None = None
    activations: str = "int8"
    kv_cache: str = "fp16"


class Engine:
    """One model ready to run, and the one sequence it is reading or writing."""

    def __init__(self, model: LanguageModel, options: Options) -> None:
        """Raises `EngineError` for options that cannot be and `ContextError` beyond the model's own context."""
        self.threads, self.context = _check(model, options)
        self.isa: str = _isa()
        self._native = native_model(model, self.context)
        self._session = _native.Session(self._native, self.context, self.threads, options.activations, options.kv_cache)
        self._model = model
        self._eos_ids: frozenset[int] | None = None

    @classmethod
    def load(  # noqa: PLR0913 - the public face: every option by its name
        cls,
        model: LanguageModel | str | Path,
        threads: int | None = None,
        context: int | None = None,
        activations: str = "int8",
        kv_cache: str = "fp16",
    ) -> Engine:
        """Read a model's weights into memory, in the engine's layout. `model` is one, or a path that `load` takes."""
        from bitwright.models import load

        loaded = load(model) if isinstance(model, str | Path) else model
        return cls(loaded, Options(threads, context, activations, kv_cache))

    @property
    def vocab_size(self) -> int:
        return int(self._native.vocabulary)

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that one decoded token reads."""
        return int(self._native.bytes_per_token)

    @property
    def cache_bytes(self) -> int:
        return int(self._session.cache_bytes)

    @property
    def position(self) -> int:
        """Tokens of the current sequence that have been read."""
        return int(self._session.position)

    @property
    def eos_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        if self._eos_ids is None:
            self._eos_ids = self._model.tokenizer().eos_ids
        return self._eos_ids

    def prefill(self, tokens: Tokens) -> Floats:
        """Read a new sequence from its start: (vocabulary,) logits after the last token."""
        self._session.rewind(0)
        return self._forward(tokens, hidden=False)

    def decode(self, token: int) -> Floats:
        """Read one more token of the current sequence: (vocabulary,) logits after it."""
        return self._forward([token], hidden=False)

    def hidden(self, tokens: Tokens) -> Floats:
        """Read a new sequence: (tokens, hidden size) rows after the final norm, from which `project` gives logits."""
        self._session.rewind(0)
        return self._forward(tokens, hidden=True)

    def project(self, hidden: Floats) -> Floats:
        """(rows, vocabulary) logits of rows that `hidden` gave."""
        logits: Floats = self._session.project(np.ascontiguousarray(hidden, np.float32))
        return logits

    def logits(self, tokens: Tokens) -> Floats:
        """Read a new sequence: (tokens, vocabulary) logits."""
        return self.project(self.hidden(tokens))

    def generate(self, prompt: Tokens, sampling: Sampling | None = None) -> Iterator[int]:
        """Read a prompt as a new sequence and write on; see `generation.generate`."""
        return generate(self, prompt, sampling or Sampling())  # type: ignore[arg-type]

    def compare(self, reference_hidden: Floats, reference: Engine, hidden: Floats, targets: Tokens) -> Comparison:
        """Both models' distributions, row by row, from hidden rows and the tokens that came next.

        `reference` may be this engine itself, for its loss alone: then the divergence is zero.
        """
        alone = reference is self
        rows = np.ascontiguousarray(hidden, np.float32)
        expected = None if alone else np.ascontiguousarray(reference_hidden, np.float32)
        session = None if alone else reference._session
        kl, nll, nll_reference, agree = self._session.compare(rows, _int32(targets), session, expected)
        return Comparison(kl, nll, nll, np.ones_like(agree)) if alone else Comparison(kl, nll, nll_reference, agree)

    def _forward(self, tokens: Tokens, hidden: bool) -> Floats:
        ids = _int32(tokens)
        if len(ids) == 0:
            raise ContextError("no tokens to read")
        if len(ids) > self.context - self.position:
            raise ContextError(
                f"{self.position + len(ids)} tokens do not fit a context of {self.context}; ask for a larger --context"
            )
        outside = ids[(ids < 0) | (ids >= self.vocab_size)]
        if len(outside):
            raise EngineError(
                f"token {int(outside[0])} is not in the model's vocabulary of {self.vocab_size}; use the model's own tokenizer"
            )
        rows, logits = self._session.forward(ids, hidden, not hidden)
        result: Floats = rows if hidden else logits
        return result


def _int32(tokens: Tokens) -> npt.NDArray[np.int32]:
    return np.ascontiguousarray(tokens, np.int32)


def _isa() -> str:
    try:
        return str(_native.isa())
    except RuntimeError as fault:
        raise EngineError(str(fault)) from fault


def _check(model: LanguageModel, options: Options) -> tuple[int, int]:
    """Threads and context to run with."""
    limit = model.architecture.context_length
    context = min(limit, DEFAULT_CONTEXT) if options.context is None else options.context
    threads = _native.available_cores() if options.threads is None else options.threads
    if not 1 <= threads <= 1024:
        raise EngineError(f"threads must be 1 to 1024, not {threads}")
    if context < 1:
        raise ContextError(f"a context holds at least 1 token, not {context}")
    if context > limit:
        raise ContextError(f"a context of {context} exceeds the model's own of {limit}; ask for at most that")
    if options.activations not in ACTIVATIONS:
        raise EngineError(f"unknown activations {options.activations!r}; choose from {', '.join(ACTIVATIONS)}")
    if options.kv_cache not in CACHES:
        raise EngineError(f"unknown KV cache {options.kv_cache!r}; choose from {', '.join(CACHES)}")
    return threads, context
