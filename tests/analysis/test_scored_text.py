"""Every token of a text is scored once, by a window that opens as the model wants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitwright.analysis.scored_text import read_text, windows_of
from bitwright.errors import ContextError, TextError


class Letters:
    """One token a character; with `bos`, texts open with token 1; `ending` puts token 2 at the end."""

    def __init__(self, bos: bool = False, ending: bool = False) -> None:
        self.bos_id = 1 if bos else None
        self.ending = ending

    def encode(self, text: str, add_special: bool = True) -> list[int]:
        ids = [ord(letter) for letter in text]
        return ([1] if self.bos_id else []) + ids + ([2] if self.ending else []) if add_special else ids


@pytest.mark.parametrize("length", [2, 9, 10, 11, 20, 25])
def test_windows_follow_each_other(length: int) -> None:
    text = "abcdefghijklmnopqrstuvwxyz"[:length]
    windows = windows_of(Letters(), text, context=10, limit=1000)
    assert all(len(window) == 10 for window in windows[:-1])
    dropped = length % 10 == 1  # one token alone scores nothing
    assert [chr(token) for window in windows for token in window] == list(text[: length - dropped])
    assert all(window.dtype == np.int32 for window in windows)


def test_every_window_opens_with_the_special_token() -> None:
    windows = windows_of(Letters(bos=True), "abcdefghijk", context=5, limit=1000)
    assert [list(window) for window in windows] == [[1, 97, 98, 99, 100], [1, 101, 102, 103, 104], [1, 105, 106, 107]]


def test_a_closing_special_token_opens_nothing() -> None:
    assert list(windows_of(Letters(ending=True), "ab", context=5, limit=9)[0]) == [97, 98]


def test_the_token_limit_holds() -> None:
    assert sum(map(len, windows_of(Letters(), "x" * 100, context=8, limit=20))) == 20


@pytest.mark.parametrize("text", ["", "a"])
def test_too_short_a_text_is_refused(text: str) -> None:
    with pytest.raises(TextError, match=f"the text has {len(text)} token"):
        windows_of(Letters(), text, context=8, limit=20)


def test_senseless_sizes_are_refused() -> None:
    with pytest.raises(ContextError, match="context of 1"):
        windows_of(Letters(), "abc", context=1, limit=20)
    with pytest.raises(TextError, match="at least 2"):
        read_text("abc", tokens=1)


def test_a_path_a_file_name_and_a_text_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "words.txt"
    path.write_text("\ufeffsome words\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    assert read_text(path, 100) == read_text(str(path), 100) == read_text("words.txt", 100) == "some words\n"
    assert read_text("some other words", 100) == "some other words"
    assert read_text("A sentence that ends with words.txt", 100).startswith("A sentence")
    for missing in (Path("gone.txt"), "gone.txt"):
        with pytest.raises(TextError, match="cannot read the text gone.txt: No such file"):
            read_text(missing, 100)


def test_no_more_of_a_large_file_is_read_than_needed(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    path.write_text("word " * 100_000, "utf-8")
    assert len(read_text(path, 10)) == 320


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(TextError, match=r"latin.txt is not UTF-8 .*; convert it"):
        read_text(path, 100)
    with pytest.raises(TextError, match="Is a directory"):
        read_text(tmp_path, 100)
