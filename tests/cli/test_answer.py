"""Text appears as soon as it is certain, and never goes past a stop string."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from bitwright.cli.answer import Clock, prompt_tokens, text_of, undecided
from bitwright.models.tokenizer import Tokenizer


class Letters:
    """A tokenizer of characters."""

    def stream(self) -> Letters:
        return self

    def push(self, token: int) -> str:
        return chr(token)

    def finish(self) -> str:
        return ""


def pieces(text: str, *stop: str) -> list[str]:
    return list(text_of(map(ord, text), Letters(), stop))  # type: ignore[arg-type]


@given(st.text("ab.", max_size=12), st.lists(st.text("ab.", min_size=1, max_size=3), max_size=3))
def test_the_text_ends_before_the_first_stop_string(text: str, stop: list[str]) -> None:
    """Against the slow way: look at every prefix of the text, and cut at what first completes a stop string."""

    def slowly() -> str:
        for end in range(len(text) + 1):
            found = [text[:end].find(word) for word in stop if word in text[:end]]
            if found:
                return text[: min(found)]
        return text

    assert "".join(pieces(text, *stop)) == slowly()


def test_tokens_after_the_stop_are_not_asked_for() -> None:
    taken: list[str] = []

    def tokens() -> Iterator[int]:
        for letter in "one. two. three":
            taken.append(letter)
            yield ord(letter)

    assert "".join(text_of(tokens(), Letters(), [". t"])) == "one"  # type: ignore[arg-type]
    assert "".join(taken) == "one. t"


def test_only_what_may_become_a_stop_string_waits() -> None:
    assert pieces("ab#c", "##") == ["a", "b", "#c", ""]
    assert undecided("text ##", ["###", "#!"]) == 2
    assert undecided("text", ["###"]) == 0


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_directory(tiny.make_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def test_characters_of_many_tokens_come_whole(tokenizer: Tokenizer) -> None:
    text = "Grüße, 你好 \N{GRINNING FACE}!"
    parts = list(text_of(tokenizer.encode(text, add_special=False), tokenizer))
    assert "".join(parts) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in part for part in parts)


def test_a_prompt_is_a_turn_unless_raw(tokenizer: Tokenizer, tmp_path: Path) -> None:
    assert tokenizer.decode(prompt_tokens(tokenizer, "Hi", raw=False), skip_special=False).endswith("<|end|><|assistant|>")
    assert prompt_tokens(tokenizer, "Hi", raw=True) == tokenizer.encode("Hi")


def test_the_clock_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([2.0, 3.0, 5.0])
    monkeypatch.setattr("bitwright.cli.answer.time.perf_counter", lambda: next(now))
    clock = Clock(begin=0.0)
    assert list(clock.watch([7, 8, 9])) == [7, 8, 9]
    assert (clock.tokens, clock.first, clock.last) == (3, 2.0, 5.0)
    assert clock.speeds(10) == {"prefill_tokens_per_s": 5.0, "decode_tokens_per_s": pytest.approx(2 / 3)}
    assert Clock(begin=0.0).speeds(10) == {"prefill_tokens_per_s": None, "decode_tokens_per_s": None}
