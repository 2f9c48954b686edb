"""Several sequences at once: what each gives is what it gives alone, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import bitwright as bw
import tiny
from bitwright.engine import CACHES, Engine, Sampling
from bitwright.errors import ContextError, EngineError
from bitwright.models.base import LanguageModel

PROMPTS = [tiny.tokens(n) for n in (3, 17, 1, 20, 9)]


@pytest.fixture(scope="module")
def model(tiny_directory: Callable[[str], Path]) -> Path:
    return tiny_directory("llama")


@pytest.mark.parametrize("case", tiny.FAMILY_CASES)
def test_a_batch_writes_what_each_prompt_gives_alone(case: str, tiny_directory: Callable[[str], Path]) -> None:
    check_batch(bw.load(tiny_directory(case)))


@pytest.mark.parametrize("scheme", ["int4-g32", "int8-channel"])
def test_so_it_does_on_codes(scheme: str, tiny_directory: Callable[[str], Path], tmp_path: Path) -> None:
    for case in ("gemma3", "qwen3-moe"):
        check_batch(bw.quantize(bw.load(tiny_directory(case)), bw.Recipe.uniform(scheme)).save(tmp_path / case))


def check_batch(model: LanguageModel) -> None:
    engine = Engine.load(model, threads=2)
    alone = [list(engine.generate(prompt, Sampling(12))) for prompt in PROMPTS]
    assert engine.generate_batch(PROMPTS, Sampling(12)) == alone
    assert engine.generate_batch(PROMPTS, Sampling(12), at_once=2) == alone


@pytest.mark.parametrize("cache", CACHES)
def test_rows_do_not_depend_on_their_company(cache: str, model: Path) -> None:
    engine = Engine.load(model, kv_cache=cache)
    expected = [engine.prefill(prompt) for prompt in PROMPTS]
    sequences = [engine.new_sequence() for _ in PROMPTS]
    found = engine.read(list(zip(sequences, PROMPTS, strict=True)))
    assert np.array_equal(found, expected)
    assert [sequence.position for sequence in sequences] == [len(prompt) for prompt in PROMPTS]


def test_each_prompt_may_have_its_own_sampling(model: Path) -> None:
    engine = Engine.load(model)
    samplings = [Sampling(4 + 3 * i, temperature=1.2, seed=i, repetition_penalty=1.1) for i in range(len(PROMPTS))]
    alone = [list(engine.generate(prompt, sampling)) for prompt, sampling in zip(PROMPTS, samplings, strict=True)]
    assert engine.generate_batch(PROMPTS, samplings, at_once=3) == alone


def test_an_answer_that_ends_makes_room_for_the_next(model: Path) -> None:
    engine = Engine.load(model)
    engine._eos_ids = frozenset()
    samplings = [Sampling(2), Sampling(6), Sampling(3), Sampling(0), Sampling(1)]
    order = [number for number, _ in engine.stream_batch(PROMPTS, samplings, at_once=2)]
    assert order == [0, 1, 0, 1, 1, 2, 1, 2, 1, 2, 1, 4]


def test_a_batch_slides_as_one_sequence_does(model: Path) -> None:
    engine = Engine.load(model, context=16)
    engine._eos_ids = frozenset()
    prompts = [tiny.tokens(10), tiny.tokens(40)]
    sampling = Sampling(30, overflow="slide")
    assert engine.generate_batch(prompts, sampling) == [list(engine.generate(prompt, sampling)) for prompt in prompts]


def test_what_cannot_be_is_refused_before_work(model: Path) -> None:
    engine = Engine.load(model, context=16)
    with pytest.raises(ContextError, match="no tokens"):
        engine.generate_batch([[1], []])
    with pytest.raises(ContextError, match="prompt has 17 tokens"):
        engine.generate_batch([[1], tiny.tokens(17)])
    with pytest.raises(EngineError, match="as many samplings"):
        engine.generate_batch([[1], [2]], [Sampling()])
    with pytest.raises(EngineError, match="at least 1"):
        engine.generate_batch([[1]], at_once=0)
    with pytest.raises(EngineError, match="twice"):
        engine.read([(engine.sequence, [1]), (engine.sequence, [2])])
    assert engine.generate_batch([]) == []


def test_a_sequence_of_another_model_is_refused(model: Path, tiny_directory: Callable[[str], Path]) -> None:
    other = Engine.load(tiny_directory("qwen3"))
    with pytest.raises(ValueError, match="another shape"):
        Engine.load(model).read([(other.new_sequence(), [1])])


@pytest.mark.parametrize(
    ("cache", "bytes_of_position"), [("fp32", 256), ("fp16", 128), ("int8", 32 + 16 + 8), ("int4", 16 + 8 + 8)]
)
def test_the_cache_takes_the_bytes_that_the_page_says(cache: str, bytes_of_position: int, model: Path) -> None:
    engine = Engine.load(model, kv_cache=cache)  # 2 layers, 2 key heads, 16 channels
    sequence = engine.new_sequence()
    assert sequence.cache_bytes == 0
    engine.read([(sequence, tiny.tokens(3))])
    assert sequence.cache_bytes == 256 * 2 * 2 * (bytes_of_position if cache in ("int8", "int4") else bytes_of_position // 2)
