"""The native engine: a thin face over C++, which runs the whole token step from embedding to logits.

Activations: "int8", the default, rounds them under one scale a token for rotated matrices, and under one for every 32 of
them for others and for the head; "int16" keeps 15 bits the same way; "fp32" multiplies decoded weights by floats. Weights in
full precision are always multiplied by floats.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from bitwright import _native
from bitwright.engine.adaptive import Follower, Switch
from bitwright.engine.fallback import tell_decoded
from bitwright.engine.generation import Sampling, generate, generate_batch
from bitwright.engine.sequence import Sequence
from bitwright.engine.state import load_state, save_state
from bitwright.engine.weights import native_model
from bitwright.errors import ContextError, EngineError, StateError
from bitwright.models.rope import inverse_frequencies
from bitwright.runtime import ACTIVATIONS, CACHES, RuntimeSetting, complete, resolved

if TYPE_CHECKING:
    from bitwright.models.base import LanguageModel

__all__ = ["ACTIVATIONS", "CACHES", "Comparison", "Engine", "Options", "Sampling", "Sequence", "Switch"]

Floats = npt.NDArray[np.float32]
Tokens = Items[int] | npt.NDArray[np.int32]

AT_ONCE = 8  # sequences that a batch decodes together
DEFAULT_CONTEXT = 4096  # at most; a model's own limit where that is smaller


class Comparison(NamedTuple):
    """Row by row: divergence from the reference and both models' loss on the next token, in nats; same likeliest token?

    `confidence_reference` is the probability of the reference's likeliest token, `right` whether a model's likeliest one came.
    """

    kl: Floats
    nll: Floats
    nll_reference: Floats
    confidence_reference: Floats
    agree: npt.NDArray[np.bool_]
    right: npt.NDArray[np.bool_]
    right_reference: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Options:
    """`context` tokens at most in one sequence; `threads` None for the number that is fastest here.

    `runtime` settings, if any, begin with these activations and this cache.
    """

    threads: int | None = None
    context: int | None = None
    activations: str = "int8"
    kv_cache: str = "fp16"
    runtime: tuple[RuntimeSetting, ...] = ()


class Engine:
    """One model ready to run, and a sequence of its own that it reads or writes where no other is named."""

    def __init__(self, model: LanguageModel, options: Options) -> None:
        """Raises `EngineError` for options that cannot be and `ContextError` beyond the model's own context."""
        self.threads, self.context = _check(model, options)
        self.isa: str = _isa()
        self._native, self._weights = native_model(model, self.context)
        self._running = _native.Session(self._native, self.threads, options.activations)
        self._model, self._options = model, options
        self._follower = Follower(options.runtime, self._native, self.context)
        self.sequence = self.new_sequence()
        self._eos_ids: frozenset[int] | None = None

    @classmethod
    def load(  # noqa: PLR0913 - the public face: every option by its name
        cls,
        model: LanguageModel | str | Path,
        threads: int | None = None,
        context: int | None = None,
        activations: str | None = None,
        kv_cache: str | None = None,
        runtime: Items[RuntimeSetting] | None = None,
        strict: bool = False,
    ) -> Engine:
        """Read a model's weights into memory, in the engine's layout. `model` is one, or a path that `load` takes.

        Activations are int8 and the cache is fp16 unless told otherwise. `runtime` settings change both as a text grows: None
        takes those of the recipe that an artifact was made by, unless activations or cache are given; () takes none. The
        weights are laid out in threads of their own after this has returned; what runs the model waits for it.

        Matrices that no integer kernel takes are decoded to fp32. The logger `bitwright.engine` says so, or with `strict`
        `EngineError` is raised; neither where activations are fp32, which asks for floats.
        """
        from bitwright.models import load

        loaded = load(model) if isinstance(model, str | Path) else model
        given = activations is not None or kv_cache is not None
        if runtime and given:
            raise EngineError("runtime settings name activations and KV cache themselves; leave those two options out")
        recorded = () if given else getattr(loaded, "runtime", ())
        settings = complete(recorded if runtime is None else runtime)
        if settings:
            first = resolved(settings)[0]
            activations, kv_cache = first.activations, first.kv_cache
        activations, kv_cache = "int8" if activations is None else activations, "fp16" if kv_cache is None else kv_cache
        if activations != "fp32":
            tell_decoded(loaded, strict)
        return cls(loaded, Options(threads, context, activations, kv_cache, settings))

    @property
    def vocab_size(self) -> int:
        return int(self._native.vocabulary)

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that one decoded token reads."""
        return int(self._native.bytes_per_token)

    @property
    def cache_bytes(self) -> int:
        """Bytes that the KV cache of one full context takes; memory is taken as a sequence grows (`Sequence.cache_bytes`)."""
        return int(self.sequence.native.cache_bytes(self.context))

    @property
    def position(self) -> int:
        """Tokens of the engine's own sequence that have been read."""
        return self.sequence.position

    @property
    def identity(self) -> str:
        """Of what cached numbers depend on beside the tokens: the model, its rope frequencies and the activations."""
        ropes = [inverse_frequencies(rope, self.context) for rope in self._model.architecture.ropes]
        turns = [(f.tolist(), factor) for f, factor in ropes]
        facts: list[object] = [self._model.fingerprint(), self._options.activations, turns]
        facts += self._options.runtime
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    @property
    def switches(self) -> list[Switch]:
        """What the engine's sequences changed as runtime settings asked for, in order."""
        return self._follower.switches

    def same_setting(self, sequence: Sequence, unread: int) -> int:
        """Tokens after `unread` more ones that are read with the setting of the last of those."""
        return self._follower.room(sequence, unread - 1) - 1

    @property
    def eos_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        if self._eos_ids is None:
            self._eos_ids = self._model.tokenizer().eos_ids
        return self._eos_ids

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Seconds that all steps so far have spent: embedding, query_key_value, attention, output, gate_up, down, head."""
        seconds: dict[str, float] = self._session.stage_seconds
        return seconds

    @property
    def buffer_bytes(self) -> int:
        """Memory that the engine takes beside weights and caches."""
        return int(self._session.buffer_bytes)

    def new_sequence(self, kv_cache: str | None = None) -> Sequence:
        """An empty sequence that this engine can read into, its cache as the engine's own. Memory is taken as it grows."""
        return Sequence(_native.Sequence(self._native, self.context, kv_cache or self._options.kv_cache))

    def prefill(self, tokens: Tokens, reuse: bool = False) -> Floats:
        """Read a new sequence: (vocabulary,) logits after the last token.

        With `reuse`, what the engine's sequence and `tokens` begin with in common is kept, not read again. The logits are the
        same, bit for bit.
        """
        ids = _int32(tokens)
        if not reuse:
            self.sequence.rewind(0)
        kept = self.sequence.keep_common(ids.tolist())
        logits: Floats = self.read([(self.sequence, ids[kept:])])[0]
        return logits

    def decode(self, token: int) -> Floats:
        """Read one more token of the engine's sequence: (vocabulary,) logits after it."""
        logits: Floats = self.read([(self.sequence, [token])])[0]
        return logits

    def read(self, pieces: Items[tuple[Sequence, Tokens]]) -> Floats:
        """Read on in several sequences at once: (pieces, vocabulary) logits after the last token of each piece.

        Weights are decoded once for all. No sequence may come twice. Each row is the one that reading alone would give.
        """
        return self._forward(pieces, hidden=False)

    def read_rows(self, sequence: Sequence, tokens: Tokens, rows: int) -> Floats:
        """Read on in a sequence: (rows, vocabulary) logits after the last `rows` tokens."""
        if rows == 1:
            return self.read([(sequence, tokens)])
        return self.project(self._forward([(sequence, tokens)], hidden=True)[-rows:])

    def hidden(self, tokens: Tokens) -> Floats:
        """Read a new sequence: (tokens, hidden size) rows after the final norm, from which `project` gives logits."""
        self.sequence.rewind(0)
        return self.read_hidden([(self.sequence, tokens)])

    def read_hidden(self, pieces: Items[tuple[Sequence, Tokens]]) -> Floats:
        """Read on in several sequences at once, as `read` does: the rows of `hidden` for all tokens, piece after piece."""
        return self._forward(pieces, hidden=True)

    def project(self, hidden: Floats) -> Floats:
        """(rows, vocabulary) logits of rows that `hidden` gave, with the activations of the last step."""
        logits: Floats = self._session.project(np.ascontiguousarray(hidden, np.float32))
        return logits

    def logits(self, tokens: Tokens) -> Floats:
        """Read a new sequence: (tokens, vocabulary) logits."""
        return self.project(self.hidden(tokens))

    def generate(self, prompt: Tokens, sampling: Sampling | None = None) -> Iterator[int]:
        """Write on from a prompt, token by token; see `generation.generate`."""
        return generate(self, prompt, sampling or Sampling())  # type: ignore[arg-type]

    def stream_batch(
        self, prompts: Items[Tokens], sampling: Sampling | Items[Sampling] | None = None, at_once: int = AT_ONCE
    ) -> Iterator[tuple[int, int]]:
        """(number of the prompt, token) as the answers to several prompts are written together.

        `at_once` sequences share a step; one that ends makes room for the next. `sampling` is one for all, or one for each.
        Every answer is what `generate` gives for its prompt; `lookup` is not used.
        """
        if at_once < 1:
            raise EngineError(f"a batch decodes at least 1 sequence at once, not {at_once}")
        each = [sampling or Sampling()] * len(prompts) if isinstance(sampling, Sampling | None) else list(sampling)
        if len(each) != len(prompts):
            raise EngineError(f"{len(prompts)} prompts need as many samplings, not {len(each)}; or give one for all")
        return generate_batch(self, prompts, each, at_once)  # type: ignore[arg-type]

    def generate_batch(
        self, prompts: Items[Tokens], sampling: Sampling | Items[Sampling] | None = None, at_once: int = AT_ONCE
    ) -> list[list[int]]:
        """The whole answers to several prompts, written together; see `stream_batch`."""
        answers: list[list[int]] = [[] for _ in prompts]
        for number, token in self.stream_batch(prompts, sampling, at_once):
            answers[number].append(token)
        return answers

    def save_state(self, path: str | Path) -> None:
        """Write the engine's sequence to a file, which appears whole or not at all. Raises `OutputError`."""
        self._refuse_state()
        save_state(self.sequence, self.identity, self._options.kv_cache, Path(path))

    def load_state(self, path: str | Path) -> None:
        """Go on from a file that `save_state` wrote for the same model. Raises `StateError`; see `engine/state.py`."""
        self._refuse_state()
        load_state(self.sequence, self.identity, self._options.kv_cache, self.vocab_size, Path(path))

    def compare(self, reference_hidden: Floats, reference: Engine, hidden: Floats, targets: Tokens) -> Comparison:
        """Both models' distributions, row by row, from hidden rows and the tokens that came next.

        `reference` may be this engine itself with the same rows, for its loss alone: then the divergence is zero.
        """
        alone = reference is self and reference_hidden is hidden
        rows = np.ascontiguousarray(hidden, np.float32)
        expected = None if alone else np.ascontiguousarray(reference_hidden, np.float32)
        session = None if alone else reference._session
        found = Comparison(*self._session.compare(rows, _int32(targets), session, expected))
        if not alone:
            return found
        return found._replace(nll_reference=found.nll, agree=np.ones_like(found.agree), right_reference=found.right)

    @property
    def _session(self) -> _native.Session:
        """Ready to run."""
        self._weights.wait()
        return self._running

    def _forward(self, pieces: Items[tuple[Sequence, Tokens]], hidden: bool) -> Floats:
        ids = [_int32(tokens) for _, tokens in pieces]
        for (sequence, _), tokens in zip(pieces, ids, strict=True):
            sequence.rewind(sequence.position)
            self._check_tokens(sequence, tokens)
        if len({id(sequence) for sequence, _ in pieces}) != len(pieces):
            raise EngineError("a sequence comes twice in one step; read its tokens as one piece")
        sequences, results = [sequence for sequence, _ in pieces], [list[Floats]() for _ in pieces]
        left = list(ids)
        while now := self._readable(sequences, left):
            counts = [min(len(left[i]), self._follower.room(sequences[i])) for i in now]
            tokens = np.concatenate([left[i][:count] for i, count in zip(now, counts, strict=True)])
            natives = [sequences[i].native for i in now]
            rows, logits = self._session.forward(natives, tokens, counts, hidden, not hidden)
            if len(tokens) == sum(map(len, ids)):  # all at once, as ever without runtime settings
                for sequence, read in zip(sequences, ids, strict=True):
                    sequence.tokens.extend(read.tolist())
                result: Floats = rows if hidden else logits
                return result
            each = np.split(rows, np.cumsum(counts)[:-1]) if hidden else logits[:, None]
            for i, count, result in zip(now, counts, each, strict=True):
                sequences[i].tokens.extend(left[i][:count].tolist())
                left[i] = left[i][count:]
                results[i] = [*results[i], result] if hidden else [result]
        return np.concatenate([part for parts in results for part in parts])

    def _readable(self, sequences: Items[Sequence], left: Items[npt.NDArray[np.int32]]) -> list[int]:
        """Which of the pieces with tokens left are read next, together: those whose settings have the same activations."""
        waiting = [i for i, tokens in enumerate(left) if len(tokens)]
        settings = self._follower.settings
        if not settings or not waiting:
            return waiting
        for i in waiting:
            self._follower.adapt(sequences[i])
        kinds = [settings[sequences[i].setting].activations for i in waiting]
        self._session.set_activations(kinds[0])
        return [i for i, kind in zip(waiting, kinds, strict=True) if kind == kinds[0]]

    def _refuse_state(self) -> None:
        if self._options.runtime:
            raise StateError("a state does not say which runtime settings it was read with; load the model with runtime=()")

    def _check_tokens(self, sequence: Sequence, ids: npt.NDArray[np.int32]) -> None:
        if len(ids) == 0:
            raise ContextError("no tokens to read")
        if len(ids) > sequence.context - sequence.position:
            raise ContextError(
                f"{sequence.position + len(ids)} tokens do not fit a context of {sequence.context}; ask for a larger --context"
            )
        outside = ids[(ids < 0) | (ids >= self.vocab_size)]
        if len(outside):
            raise EngineError(
                f"token {int(outside[0])} is not in the model's vocabulary of {self.vocab_size}; use the model's own tokenizer"
            )


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
    threads = _native.fastest_threads() if options.threads is None else options.threads
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
