"""Writing: sampling options, the end of text, and what happens when the context is full."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import bitwright as bw
import tiny
from bitwright import _native
from bitwright.engine import Engine, Sampling
from bitwright.errors import ContextError, EngineError


@pytest.fixture(scope="module")
def model(tiny_directory: Callable[[str], Path]) -> Path:
    return tiny_directory("llama")


def test_greedy_takes_the_likeliest_token_each_time(model: Path) -> None:
    engine = Engine.load(model, activations="fp32", kv_cache="fp32")
    tokens = tiny.tokens(10)
    written = list(engine.generate(tokens, Sampling(max_tokens=8)))
    for token in written:
        assert token == engine.logits(tokens)[-1].argmax()
        tokens.append(token)


def test_a_seed_gives_the_same_answer_and_another_seed_another(model: Path) -> None:
    engine = Engine.load(model)
    answers = [tuple(engine.generate(tiny.tokens(5), Sampling(30, temperature=1.5, seed=seed))) for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]


def test_the_answer_ends_at_the_end_token(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine.load(model)
    written = list(engine.generate(tiny.tokens(10), Sampling(max_tokens=8)))
    engine._eos_ids = frozenset([written[3]])
    assert list(engine.generate(tiny.tokens(10), Sampling(max_tokens=8))) == written[: written.index(written[3])]


def test_a_full_context_is_an_error_or_slides(model: Path) -> None:
    engine = Engine.load(model, context=16)
    with pytest.raises(ContextError, match="full; raise --context or pass --overflow slide"):
        list(engine.generate(tiny.tokens(10), Sampling(max_tokens=50)))
    with pytest.raises(ContextError, match="prompt has 17 tokens"):
        next(engine.generate(tiny.tokens(17), Sampling()))
    engine._eos_ids = frozenset()
    assert len(list(engine.generate(tiny.tokens(10), Sampling(max_tokens=50, overflow="slide")))) == 50
    assert len(list(engine.generate(tiny.tokens(40), Sampling(max_tokens=50, overflow="slide")))) == 50


def test_a_slid_context_is_its_later_half_read_anew(model: Path) -> None:
    engine = Engine.load(model, context=16, activations="fp32", kv_cache="fp32")
    engine._eos_ids = frozenset()
    prompt = tiny.tokens(16)
    written = list(engine.generate(prompt, Sampling(max_tokens=2, overflow="slide")))
    assert written[1] == engine.logits([*prompt, written[0]][-8:])[-1].argmax()


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": 2.0},
        {"repetition_penalty": 0.0},
        {"seed": -1},
        {"max_tokens": -1},
        {"overflow": "wrap"},
    ],
)
def test_sampling_refuses_what_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(EngineError, match=next(iter(wrong))):
        Sampling(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"threads": 0}, EngineError),
        ({"context": 0}, ContextError),
        ({"context": 10**6}, ContextError),
        ({"activations": "int4"}, EngineError),
        ({"kv_cache": "int2"}, EngineError),
    ],
)
def test_the_engine_refuses_what_cannot_be(model: Path, options: dict[str, int], fault: type[Exception]) -> None:
    with pytest.raises(fault):
        Engine.load(model, **options)  # type: ignore[arg-type]


def test_tokens_outside_the_vocabulary_or_none_are_refused(model: Path) -> None:
    engine = Engine.load(model)
    for bad in ([tiny.VOCABULARY], [-1]):
        with pytest.raises(EngineError, match="vocabulary"):
            engine.prefill(bad)
    with pytest.raises(ContextError, match="no tokens"):
        engine.prefill([])
    with pytest.raises(ContextError, match="do not fit"):
        engine.hidden(np.zeros(engine.context + 1, np.int32))


def test_an_unknown_instruction_set_is_named(model: Path) -> None:
    code = f"from bitwright.engine import Engine; Engine.load({str(model)!r})"
    environment = os.environ | {"BITWRIGHT_ISA": "sse9"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "EngineError: BITWRIGHT_ISA=sse9 is unknown or not supported here; this machine has" in run.stderr


def test_threads_do_not_change_the_answer(model: Path) -> None:
    ids = tiny.tokens(40)
    one, three = (Engine.load(bw.load(model), threads=threads, activations="fp32").logits(ids) for threads in (1, 3))
    assert np.abs(one - three).max() < 1e-5


def test_the_number_of_threads_is_found_once_among_the_cores(model: Path) -> None:
    first, second = Engine.load(model), Engine.load(model)
    assert 1 <= first.threads == second.threads <= _native.available_cores()
    assert Engine.load(model, threads=3).threads == 3
