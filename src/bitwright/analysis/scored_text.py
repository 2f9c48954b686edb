"""From a text to the windows of tokens that an evaluation scores.

A window is `context` tokens; its first is context only, so context - 1 are scored. Where the tokenizer opens a text with
a special token (BOS), every window opens with it, since such models are lost without it; else windows simply follow each
other. The last window may be shorter; one token alone scores nothing and is dropped.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bitwright.errors import ContextError, TextError

Tokens = npt.NDArray[np.int32]

_CHARACTERS_PER_TOKEN = 32  # no text averages more: enough of a large file is read, and no more
_TEXT_SUFFIXES = (".txt", ".md", ".text")


class Encoder(Protocol):
    """The part of a tokenizer that is needed here."""

    @property
    def bos_id(self) -> int | None: ...

    def encode(self, text: str, add_special: bool = True) -> list[int]: ...


def read_text(text: str | Path, tokens: int) -> str:
    """The text, or as much of the file as `tokens` tokens can need. Raises `TextError`."""
    if tokens < 2:
        raise TextError(f"{tokens} token(s) leave nothing to score; ask for at least 2")
    if isinstance(text, str) and not _names_a_file(text):
        return text[: tokens * _CHARACTERS_PER_TOKEN]
    try:
        with Path(text).open(encoding="utf-8-sig") as file:
            return file.read(tokens * _CHARACTERS_PER_TOKEN)
    except UnicodeDecodeError as fault:
        raise TextError(f"{text} is not UTF-8 ({fault.reason}); convert it, for example with iconv -t utf-8") from fault
    except OSError as fault:
        raise TextError(f"cannot read the text {text}: {fault.strerror}; give a UTF-8 text file") from fault


def windows_of(tokenizer: Encoder, text: str, context: int, limit: int) -> list[Tokens]:
    """Windows of at most `context` tokens, together at most `limit`, each of at least 2. Raises `TextError`, `ContextError`."""
    if context < 2:
        raise ContextError(f"a context of {context} leaves nothing to score; give at least 2")
    opening = [token for token in tokenizer.encode("", add_special=True)[:1] if token == tokenizer.bos_id]
    ids = np.asarray(tokenizer.encode(text, add_special=False), np.int32)[:limit]
    step = context - len(opening)
    pieces = [ids[begin : begin + step] for begin in range(0, len(ids), step)]
    windows = [np.concatenate([np.asarray(opening, np.int32), piece]) for piece in pieces]
    scored = [window for window in windows if len(window) >= 2]
    if not scored:
        raise TextError(f"the text has {len(ids)} token(s), nothing to score; give a text of at least 2 tokens")
    return scored


def _names_a_file(text: str) -> bool:
    """A short string that is a file's name, or that was surely meant to be one."""
    if len(text) > 4096 or not text.strip() or "\n" in text:
        return False
    return os.path.isfile(text) or (text.endswith(_TEXT_SUFFIXES) and not any(map(str.isspace, text)))
