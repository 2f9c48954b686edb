"""What a new prompt shares with what was read is not read again, and nothing changes by that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from bitwright.engine import CACHES, Engine, Sampling


@pytest.fixture(scope="module")
def model(tiny_directory: Callable[[str], Path]) -> Path:
    return tiny_directory("llama")


def counted(engine: Engine) -> list[int]:
    """A list to which every step adds the number of its tokens."""
    counts: list[int] = []
    forward: Callable[..., Any] = engine._forward

    def count(pieces: Any, hidden: bool) -> Any:
        counts.append(sum(len(tokens) for _, tokens in pieces))
        return forward(pieces, hidden)

    engine._forward = count  # type: ignore[method-assign]
    return counts


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("shared", [0, 1, 29, 30])
def test_logits_are_those_of_a_fresh_read(cache: str, shared: int, model: Path) -> None:
    engine, fresh = Engine.load(model, kv_cache=cache), Engine.load(model, kv_cache=cache, threads=1)
    first = tiny.tokens(30)
    for second in (first[:shared] + [5, 6, 7], first[:shared] or [1], first + [9]):
        engine.prefill(first)
        counts = counted(engine)
        assert np.array_equal(engine.prefill(second, reuse=True), fresh.prefill(second))
        common = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))
        assert counts[0] == len(second) - min(common, len(second) - 1)
        assert engine.sequence.tokens == second


def test_a_conversation_reads_only_what_is_new(model: Path) -> None:
    engine = Engine.load(model)
    engine._eos_ids = frozenset()
    prompt = tiny.tokens(20)
    answer = list(engine.generate(prompt, Sampling(6)))
    counts = counted(engine)
    following = [*prompt, *answer, 4, 5, 6]
    again = list(engine.generate(following, Sampling(5)))
    assert counts == [4, 1, 1, 1, 1]  # the answer's last token had not been read
    assert again == list(Engine.load(model).generate(following, Sampling(5)))


def test_prefill_alone_reads_everything(model: Path) -> None:
    engine = Engine.load(model)
    counts = counted(engine)
    engine.prefill(tiny.tokens(20))
    engine.prefill(tiny.tokens(20))
    assert counts == [20, 20]


def test_a_step_that_fails_leaves_the_sequence_as_it_was(model: Path) -> None:
    engine = Engine.load(model)
    before = engine.prefill(tiny.tokens(20))
    with pytest.raises(Exception, match="vocabulary"):
        engine.decode(tiny.VOCABULARY)
    assert engine.position == 20
    assert np.array_equal(engine.prefill(tiny.tokens(20), reuse=True), before)


def test_a_prompt_far_longer_than_a_chunk_is_read_in_bounded_memory(
    tiny_directory: Callable[[str], Path], tmp_path: Path
) -> None:
    config = (tiny_directory("llama") / "config.json").read_text("utf-8")
    for file in tiny_directory("llama").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text(config.replace('"max_position_embeddings": 128', '"max_position_embeddings": 8192'))
    engine = Engine.load(tmp_path, context=4200)
    prompt = (tiny.tokens(64) * 65)[:4100]
    whole = engine.prefill(prompt)
    other = engine.new_sequence()
    engine.read([(other, prompt[:1000])])
    assert np.array_equal(engine.read([(other, prompt[1000:])])[0], whole)
    assert other.cache_bytes == 17 * 256 * 2 * 2 * 32 * 2
