"""Calibration text that the model writes itself, so that none has to be found, and none is seen that a test will ask about.

Window i depends on the seed and on i alone. Every tenth holds tokens drawn at random from the vocabulary. The others are
sampled at temperatures around 1, which is what the model takes text to be like: colder text repeats itself, hotter text is
noise, and layers rounded by either do worse on real text. A beginning is a token drawn at random, after BOS where the
tokenizer opens a text with it, or in every second group of four windows BOS alone; where the model ends its text, the next
begins in the same window. Several windows are written together; what each becomes is what it would become alone.
Data from the model itself: LLM-QAT, Liu et al. 2023, arXiv:2305.17888.

Each window is kept in a file of its own as soon as it is written, so an interrupted run loses at most the windows at work,
and a later one that wants more windows writes only those.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bitwright.cache import cache_directory, keep

if TYPE_CHECKING:
    from bitwright.engine import Engine
    from bitwright.models.base import LanguageModel
    from bitwright.models.tokenizer import Tokenizer

Floats = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]
Progress = Callable[[int, int], None]

TEMPERATURES = (0.9, 1.0, 1.1, 1.2)
AT_ONCE = 32  # windows that are written together: reading weights and taking codes apart is shared by all
BLOCK = 256  # probabilities that are summed at once
RANDOM_EVERY = 10  # one window in ten is random tokens
_LAYOUT = 3  # raise it when the same seed would write another text


def self_written(
    model: LanguageModel, shape: tuple[int, int], seed: int, writer: Callable[[], LanguageModel], progress: Progress | None
) -> Tokens:
    """(windows, length) tokens. `writer` gives the model that writes: `model` itself, or a faster form of it.

    `progress` is told (tokens done, tokens in all).
    """
    windows, length = shape
    directory = _directory(model, length, seed)
    result = np.zeros(shape, np.int32)
    missing = []
    for index in range(windows):
        kept = _read(directory / f"{index}.npy", length, model.architecture.vocab_size)
        if kept is None:
            missing.append(index)
        else:
            result[index] = kept
    kept_tokens = (windows - len(missing)) * length

    def report(written: int) -> None:
        if progress is not None:
            progress(kept_tokens + written, windows * length)

    for index, tokens in _write(writer, missing, (length, seed), report) if missing else ():
        result[index] = tokens
        keep(directory / f"{index}.npy", partial(np.save, arr=tokens))
    return result


def missing_tokens(model: LanguageModel, shape: tuple[int, int], seed: int) -> int:
    """How many tokens `self_written` would have to write."""
    directory = _directory(model, shape[1], seed)
    return shape[1] * sum(not (directory / f"{index}.npy").is_file() for index in range(shape[0]))


def _write(
    writer: Callable[[], LanguageModel], indices: Items[int], text: tuple[int, int], report: Callable[[int], None]
) -> Iterator[tuple[int, Tokens]]:
    """The windows of these numbers, each as soon as it is complete. `text`: length and seed; `report` is told tokens written."""
    from bitwright.engine import Engine

    (length, seed), model = text, writer()
    vocabulary = min(model.tokenizer().vocab_size, model.architecture.vocab_size)
    opening = opening_of(model.tokenizer())
    engine = Engine.load(model, context=length)
    waiting, writing, complete = deque(indices), list[_Window](), 0
    while waiting or writing:
        while waiting and len(writing) < AT_ONCE:
            index = waiting.popleft()
            random = np.random.default_rng((seed, index))
            if index % RANDOM_EVERY == RANDOM_EVERY - 1:
                complete += 1
                yield index, random.integers(0, vocabulary, length).astype(np.int32)
            else:
                writing.append(_Window(engine, opening, index, random))
        going = [window for window in writing if len(window.tokens) < length]
        for window in writing:
            if window not in going:
                complete += 1
                yield window.index, np.asarray(window.tokens[:length], np.int32)
        if going:
            rows = engine.read([(window.sequence, window.unread) for window in going])
            for window, row in zip(going, rows, strict=True):
                window.draw(row)
        writing = going
        report(complete * length + sum(len(window.tokens) for window in writing))


def opening_of(tokenizer: Tokenizer) -> list[int]:
    """BOS, where the tokenizer opens a text with it."""
    return [token for token in tokenizer.encode("", add_special=True)[:1] if token == tokenizer.bos_id]


class _Window:
    """One window in the model's own words, while it is written; `unread` must be read before the next token is drawn."""

    def __init__(self, engine: Engine, opening: list[int], index: int, random: np.random.Generator) -> None:
        self.index, self.tokens, self.sequence = index, list[int](), engine.new_sequence()
        self._engine, self._opening, self._random = engine, opening, random
        self._temperature = np.float32(TEMPERATURES[index % len(TEMPERATURES)])
        self._only_opening = bool(opening) and index // len(TEMPERATURES) % 2 == 0
        self._begin()

    def draw(self, logits: Floats) -> None:
        """The next token of the text, and where it ends, the beginning of another."""
        token = drawn(logits / self._temperature, self._random.random())
        self.tokens.append(token)
        self.unread = [token]
        if token in self._engine.eos_ids:
            self._begin()

    def _begin(self) -> None:
        first = [] if self._only_opening else [int(self._random.integers(self._engine.vocab_size))]
        self.unread = [*self._opening, *first]
        self.tokens += self.unread
        self.sequence.rewind(0)


def drawn(logits: Floats, height: float) -> int:
    """The token at `height`, in [0, 1), of the cumulative probabilities: a draw from the whole vocabulary, without sorting it.

    Probabilities are summed by blocks, and one by one only in the block where that height is.
    """
    p = np.exp(logits - logits.max())
    begins = np.arange(0, len(p), BLOCK)
    ends = np.cumsum(np.add.reduceat(p, begins), dtype=np.float64)
    block = min(int(np.searchsorted(ends, height * ends[-1], side="right")), len(ends) - 1)
    left = height * ends[-1] - (ends[block - 1] if block else 0.0)
    within = np.cumsum(p[begins[block] : begins[block] + BLOCK], dtype=np.float64)
    return int(begins[block]) + min(int(np.searchsorted(within, left, side="right")), len(within) - 1)


def _directory(model: LanguageModel, length: int, seed: int) -> Path:
    key = hashlib.sha256(repr((_LAYOUT, model.fingerprint(), length, seed)).encode()).hexdigest()[:24]
    return cache_directory() / f"written-{key}"


def _read(path: Path, length: int, vocabulary: int) -> Tokens | None:
    """A window that was kept; None where there is none, or no sound one."""
    try:
        tokens = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    sound = tokens.shape == (length,) and tokens.dtype == np.int32 and tokens.min() >= 0 and tokens.max() < vocabulary
    return tokens if sound else None
