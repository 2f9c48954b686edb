"""Calibration windows from where the user says: the model itself, a text file, or a data set on the Hugging Face hub.

A text is cut into windows of equal length, of which as many as are wanted are taken, evenly spaced from its beginning to
its end; windows open with BOS where the tokenizer opens a text so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bitwright.calibration.self_written import opening_of, self_written
from bitwright.errors import TextError
from bitwright.models.huggingface import is_hub_id

if TYPE_CHECKING:
    from bitwright.models.base import LanguageModel

Tokens = npt.NDArray[np.int32]
Watch = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]  # what is done -> a callback (done, total)

WINDOWS, LENGTH = 128, 512
LARGEST_TEXT = 2**26  # characters that are read
_PLAIN = (".txt", ".md", ".text")


@contextmanager
def unwatched(_: str) -> Iterator[Callable[[int, int], None]]:
    """A `Watch` that shows nothing."""
    yield lambda done, total: None


@dataclass(frozen=True)
class Source:
    """`place` is "self", a text file, or a data set such as org/name. At most `windows` of `length` tokens are used."""

    place: str = "self"
    windows: int = WINDOWS
    length: int = LENGTH
    seed: int = 0

    @classmethod
    def of(cls, place: str, tokens: int) -> Source:
        """About so many tokens, in windows of the usual length, or one shorter window."""
        return cls(place, max(1, tokens // LENGTH), min(LENGTH, tokens))

    def check(self) -> None:
        """Raises `TextError` unless the place is one of the three; asks no network."""
        if self.windows < 1 or self.length < 2:
            raise TextError(f"{self.windows} windows of {self.length} tokens calibrate nothing; ask for at least one of 2")
        on_hub = is_hub_id(self.place) and not self.place.endswith((*_PLAIN, ".jsonl"))
        if self.place != "self" and not Path(self.place).is_file() and not on_hub:
            raise TextError(f"no calibration text {self.place}; give a text file, a data set on the hub, or 'self'")

    def tokens(self, model: LanguageModel, writer: Callable[[], LanguageModel], watch: Watch) -> Tokens:
        """(windows, length) tokens. Raises `TextError`."""
        length = min(self.length, model.architecture.context_length)
        if self.place == "self":
            with watch("writing calibration text") as progress:
                return self_written(model, (self.windows, length), self.seed, writer, progress)
        text = _read(Path(self.place)) if Path(self.place).is_file() else _from_hub(self.place)
        return cut(model, text, (self.windows, length), self.place)


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


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig") as file:
            if path.suffix == ".jsonl":
                return _joined(file.read(LARGEST_TEXT), path)
            return file.read(LARGEST_TEXT)
    except UnicodeDecodeError as fault:
        raise TextError(f"{path} is not UTF-8 ({fault.reason}); convert it, for example with iconv -t utf-8") from fault
    except OSError as fault:
        raise TextError(f"cannot read the text {path}: {fault.strerror}; give a UTF-8 text file") from fault


def _joined(lines: str, path: Path) -> str:
    """The "text" fields of a file with one JSON object a line; a last line that was cut off is left out."""
    texts = []
    for number, line in enumerate(lines.splitlines()):
        try:
            texts.append(json.loads(line)["text"])
        except (ValueError, KeyError, TypeError) as fault:
            if len(lines) == LARGEST_TEXT and number == lines.count("\n"):
                break
            raise TextError(f"line {number + 1} of {path} is no JSON object with a 'text'; convert it to plain text") from fault
    return "\n\n".join(map(str, texts))


def _from_hub(name: str) -> str:
    """The first plain text or JSON lines of a data set. Raises `TextError` naming what went wrong in one line."""
    from huggingface_hub import HfApi, hf_hub_download  # takes a while to import

    try:
        files = HfApi().list_repo_files(name, repo_type="dataset")
        readable = [file for file in sorted(files) if file.endswith((*_PLAIN, ".jsonl")) and "readme" not in file.lower()]
        if not readable:
            raise TextError(f"the data set {name} has no .txt or .jsonl file; download it and give a text file")
        return _read(Path(hf_hub_download(name, readable[0], repo_type="dataset")))
    except (OSError, ValueError) as fault:  # all faults of the hub are one or the other
        if isinstance(fault, TextError):
            raise
        reason = (str(fault).strip().splitlines() or [type(fault).__name__])[0][:160]
        raise TextError(
            f"no file {name}, and the hub does not give such a data set ({reason}); give a text file, or 'self'"
        ) from fault
