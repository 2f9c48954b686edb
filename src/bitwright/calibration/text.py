"""Calibration windows from where the user says: the model itself, a text file, or a data set on the Hugging Face hub.

A text is cut into windows of equal length, of which as many as are wanted are taken, evenly spaced from its beginning to
its end; windows open with BOS where the tokenizer opens a text so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bitwright.calibration.hub_text import HubText
from bitwright.calibration.parquet import PARQUET, require_pyarrow
from bitwright.calibration.self_written import opening_of, self_written
from bitwright.calibration.text_files import read_text
from bitwright.errors import TextError

if TYPE_CHECKING:
    from bitwright.models.base import LanguageModel

Tokens = npt.NDArray[np.int32]
Watch = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]  # what is done -> a callback (done, total)

WINDOWS, LENGTH = 128, 512


@contextmanager
def unwatched(_: str) -> Iterator[Callable[[int, int], None]]:
    """A `Watch` that shows nothing."""
    yield lambda done, total: None


@dataclass(frozen=True)
class Source:
    """`place` is "self", a file of text, or a data set, org/name:config:split. At most `windows` of `length` tokens are used."""

    place: str = "self"
    windows: int = WINDOWS
    length: int = LENGTH
    seed: int = 0

    @classmethod
    def of(cls, place: str, tokens: int) -> Source:
        """About so many tokens, in windows of the usual length, or one shorter window."""
        return cls(place, max(1, tokens // LENGTH), min(LENGTH, tokens))

    def check(self) -> None:
        """Raises `TextError` unless the place is one of the three and can be read here; asks no network."""
        if self.windows < 1 or self.length < 2:
            raise TextError(f"{self.windows} windows of {self.length} tokens calibrate nothing; ask for at least one of 2")
        if self.place == "self":
            return
        if Path(self.place).is_file():
            if self.place.endswith(PARQUET):
                require_pyarrow(self.place)
        elif HubText.parse(self.place) is None:
            raise TextError(f"no calibration text {self.place}; give a text file, a data set org/name:config:split, or 'self'")

    def tokens(self, model: LanguageModel, writer: Callable[[], LanguageModel], watch: Watch) -> Tokens:
        """(windows, length) tokens. Raises `TextError`."""
        length = min(self.length, model.architecture.context_length)
        if self.place == "self":
            with watch("writing calibration text") as progress:
                return self_written(model, (self.windows, length), self.seed, writer, progress)
        return cut(model, self._text(), (self.windows, length), self.place)

    def _text(self) -> str:
        path, data_set = Path(self.place), HubText.parse(self.place)
        return read_text(path) if path.is_file() or data_set is None else data_set.read()


def cut(model: LanguageModel, text: str, shape: tuple[int, int], place: str) -> Tokens:
    """(windows, length) tokens of a text, evenly spaced. Raises `TextError` where it has not one window."""
    windows, length = shape
    tokenizer = model.tokenizer()
    opening = opening_of(tokenizer)
    ids = np.asarray(tokenizer.encode(text, add_special=False), np.int32)
    step = length - len(opening)
    count = len(ids) // step
    if count == 0:
        raise TextError(f"{place} has {len(ids)} tokens, calibration needs {step} at least; give a longer text, or 'self'")
    chosen = np.unique(np.linspace(0, count - 1, min(windows, count)).astype(np.int64))
    pieces = ids[: count * step].reshape(count, step)[chosen]
    return np.concatenate([np.tile(np.asarray(opening, np.int32), (len(pieces), 1)), pieces], axis=1).astype(np.int32)
