"""Runtime settings: nothing changes before a threshold, all after it is as a slow twin says, impossible ones are refused."""

from __future__ import annotations

import logging
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import tiny
from bitwright import _native
from bitwright.core import Choice, Recipe, Scheme
from bitwright.engine import CACHES, Engine, Sampling, Sequence, adaptive
from bitwright.engine.lookup import Guesser
from bitwright.errors import EngineError, RecipeError, StateError
from bitwright.models import load
from bitwright.quantization import quantize
from bitwright.runtime import NARROWER, RuntimeSetting, read_settings
from engine.cache_twin import numbers_of, state_of
from handmade import LAYERS, make_handmade

TEXT = tiny.tokens(100)
LATER = (RuntimeSetting("fp16", "int16"), RuntimeSetting("int8", "int8", from_context=40))
SHORT = (RuntimeSetting("fp32"), RuntimeSetting("int4", below_free_memory_mb=500))
HEADS, CHANNELS = 2, 16


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_handmade(tmp_path_factory.mktemp("handmade") / "model")


@pytest.fixture(scope="module")
def quantized(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact whose recipe asks for LATER."""
    recipe = Recipe((Choice("*", Scheme.parse("int8-channel"), rotate=True),), runtime=LATER)
    place = tmp_path_factory.mktemp("artifact") / "model"
    quantize(load(model), recipe).save(place)
    return place


@pytest.mark.parametrize("old", CACHES)
@pytest.mark.parametrize("new", CACHES)
def test_a_converted_cache_is_the_twins(model: Path, old: str, new: str) -> None:
    engine = Engine.load(model, kv_cache=old, threads=1)
    engine.prefill(TEXT[:50])
    shape = (50, LAYERS, HEADS, CHANNELS)
    keys, values = numbers_of(engine.sequence.native.state(), old, shape)
    if old in ("fp32", "fp16"):
        assert np.array_equal(state_of(keys, values, old), engine.sequence.native.state())
    converted = engine.new_sequence(new).native
    converted.follow(engine.sequence.native)
    assert converted.position == 50
    assert np.array_equal(converted.state(), state_of(keys, values, new))


@pytest.mark.parametrize("split", [[100], [40, 60], [39, 1, 60], [41, 59], [7] * 14 + [2]])
def test_a_threshold_is_met_exactly_and_then_all_is_as_the_twin_says(quantized: Path, split: list[int]) -> None:
    engine = Engine.load(quantized, threads=1)
    before = Engine.load(quantized, threads=1, activations="int16", kv_cache="fp16")
    after = Engine.load(quantized, threads=1, activations="int8", kv_cache="int8")
    expected = [before.decode(token) for token in TEXT[:40]]
    keys, values = numbers_of(before.sequence.native.state(), "fp16", (40, LAYERS, HEADS, CHANNELS))
    after.sequence.native.restore(40, state_of(keys, values, "int8"))
    after.sequence.tokens.extend(TEXT[:40])
    expected += [after.decode(token) for token in TEXT[40:]]
    assert sum(split) == len(TEXT)
    for begin, end in pairwise(np.cumsum([0, *split])):
        logits = engine.read([(engine.sequence, TEXT[begin:end])])[0]
        assert np.array_equal(logits, expected[end - 1])
    assert [(switch.position, switch.before.kv_cache, switch.after.kv_cache) for switch in engine.switches] == [
        (40, "fp16", "int8")
    ]
    hidden = engine.hidden(TEXT)
    assert hidden.shape == (100, 64) and np.array_equal(hidden[:40], before.hidden(TEXT[:40]))


def test_a_switch_is_told(quantized: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine.load(quantized, threads=1)
    with caplog.at_level(logging.INFO, logger="bitwright.engine"):
        engine.prefill(TEXT[:40])
        assert engine.switches == [] and not caplog.records
        engine.decode(1)
    (switch,) = engine.switches
    assert caplog.messages == [str(switch)]
    assert (switch.reason, switch.freed_bytes > 0, switch.seconds > 0) == ("40 tokens reached", True, True)
    assert str(switch).startswith("after 40 tokens: KV cache fp16 to int8, activations int16 to int8 (40 tokens reached; ")


def test_a_new_text_begins_with_the_first_setting(quantized: Path) -> None:
    engine, plain = Engine.load(quantized, threads=1), Engine.load(quantized, threads=1, activations="int16")
    engine.prefill(TEXT)
    assert np.array_equal(engine.prefill(TEXT[:30]), plain.prefill(TEXT[:30]))
    fresh = engine.prefill(TEXT)
    assert len(engine.switches) == 2
    # What was converted serves no text that would have been read otherwise; what was read after the switch does.
    assert np.array_equal(engine.prefill(TEXT[:20], reuse=True), plain.prefill(TEXT[:20]))
    assert np.array_equal(engine.prefill([*TEXT[:60], 7], reuse=True), Engine.load(quantized, threads=1).prefill([*TEXT[:60], 7]))
    assert np.array_equal(engine.prefill(TEXT, reuse=True), fresh) and len(engine.switches) == 3


def test_batches_and_guesses_write_what_plain_writing_writes(quantized: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [TEXT[:5], TEXT[3:38], [*TEXT[:12], *TEXT[:12], *TEXT[:12]], TEXT[:60]]
    engine = Engine.load(quantized, threads=1)
    alone = [list(Engine.load(quantized, threads=1).generate(prompt, Sampling(40))) for prompt in prompts]
    assert engine.generate_batch(prompts, Sampling(40), at_once=4) == alone
    read, crossed = engine.read_rows, []

    def read_rows(sequence: Sequence, tokens: list[int], rows: int) -> npt.NDArray[np.float32]:
        end = sequence.position + len(tokens)
        crossed.append(end - rows < 40 < end)
        return read(sequence, tokens, rows)

    monkeypatch.setattr(engine, "read_rows", read_rows)
    for prompt, answer in zip(prompts, alone, strict=True):
        whole = [*prompt, *answer]
        monkeypatch.setattr(
            Guesser, "guess", lambda _, tokens, most, whole=whole: whole[len(tokens) : len(tokens) + min(8, most)]
        )
        assert list(engine.generate(prompt, Sampling(40, lookup=8))) == answer
    assert crossed and not any(crossed)
    engine.prefill(TEXT[:30])
    assert [engine.same_setting(engine.sequence, unread) for unread in (1, 5, 10)] == [9, 5, 0]


def test_memory_that_gets_short_switches_at_the_next_step(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, plain = Engine.load(model, runtime=SHORT, threads=1), Engine.load(model, kv_cache="fp32", threads=1)
    free = [500_000_000]
    monkeypatch.setattr(adaptive, "free_memory", lambda: free[0])
    assert np.array_equal(engine.prefill(TEXT[:50]), plain.prefill(TEXT[:50])) and engine.switches == []
    free[0] -= 1
    engine.decode(3)
    assert [switch.reason for switch in engine.switches] == ["500 MB of memory free, below 500 MB"]
    free[0] = 10**12
    engine.decode(3)
    assert len(engine.switches) == 1 and 4 * engine.sequence.cache_bytes == plain.sequence.cache_bytes
    monkeypatch.setattr(adaptive, "free_memory", lambda: None)
    engine.prefill(TEXT[:50])
    assert len(engine.switches) == 1


def test_free_memory_is_the_systems(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:     1234 kB\n")
    assert adaptive.free_memory(tmp_path / "meminfo") == 1234 * 1024
    assert adaptive.free_memory(tmp_path / "missing") is None


def test_recipes_carry_the_settings(quantized: Path, tmp_path: Path) -> None:
    recipe = Recipe((Choice("*", Scheme.parse("int4-g64")),), runtime=(*LATER, RuntimeSetting("int4", below_free_memory_mb=500)))
    recipe.save(tmp_path / "recipe.json")
    assert Recipe.load(tmp_path / "recipe.json") == recipe
    assert "runtime" not in Recipe.uniform("int4-g64").to_dict()
    assert recipe.to_dict()["runtime"][2] == {"kv_cache": "int4", "below_free_memory_mb": 500}
    toml = 'choices = [{pattern = "*", scheme = "int4-g64"}]\n[[runtime]]\nactivations = "int16"\n[[runtime]]\n'
    (tmp_path / "recipe.toml").write_text(toml + 'activations = "int8"\nfrom_context = 9\n')
    assert Recipe.load(tmp_path / "recipe.toml").runtime[1] == RuntimeSetting("", "int8", from_context=9)
    for options in ({"kv_cache": "fp16"}, {"activations": "int8"}, {"runtime": ()}):
        plain = Engine.load(quantized, threads=1, **options)  # type: ignore[arg-type]
        plain.prefill(TEXT)
        assert plain.switches == []


def test_states_and_contradictions_are_refused(quantized: Path, tmp_path: Path) -> None:
    engine = Engine.load(quantized, threads=1)
    for work in (engine.save_state, engine.load_state):
        with pytest.raises(StateError, match="runtime=()"):
            work(tmp_path / "state")
    with pytest.raises(EngineError, match="leave those two options out"):
        Engine.load(quantized, kv_cache="int8", runtime=LATER)
    other = _native.Sequence(_native.Model(), 10, "fp16")
    with pytest.raises(ValueError, match="another shape"):
        other.follow(engine.sequence.native)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ("fp16", "is a list of settings"),
        ([1], "is a list of settings"),
        ([{"cache": "fp16"}], "takes activations, below_free_memory_mb, from_context, kv_cache"),
        ([{"kv_cache": 8}], "are strings"),
        ([{"kv_cache": "int2"}], "unknown KV cache 'int2'"),
        ([{"activations": "int2"}], "unknown activations 'int2'"),
        ([{}, {"kv_cache": "int8", "from_context": -1}], "a whole number from 0"),
        ([{}, {"kv_cache": "int8", "from_context": True}], "a whole number from 0"),
        ([{}, {"kv_cache": "int8", "below_free_memory_mb": 0.5}], "a whole number from 0"),
        ([{"kv_cache": "int8", "from_context": 5}], "first runtime setting holds from the start"),
        ([{}, {"kv_cache": "int8"}], "setting 2 is never reached"),
        ([{"kv_cache": "int8"}, {"kv_cache": "fp16", "from_context": 5}], "widen the KV cache from int8 to fp16"),
        ([{}, {"kv_cache": "fp16", "from_context": 5}], "changes nothing"),
        ([{}, {"kv_cache": "int8", "from_context": 9}, {"kv_cache": "int4", "from_context": 9}], "let from_context grow"),
        (
            [{}, {"kv_cache": "int8", "below_free_memory_mb": 9}, {"kv_cache": "int4", "below_free_memory_mb": 9}],
            "let the memory shrink",
        ),
    ],
)
def test_impossible_settings_are_refused(settings: object, fault: str) -> None:
    with pytest.raises(RecipeError, match=fault):
        Recipe.from_dict({"choices": [{"pattern": "*", "scheme": "int4-g64"}], "runtime": settings})


def test_every_cache_has_its_place() -> None:
    assert set(NARROWER) == set(CACHES)
    assert read_settings([]) == ()


def test_stages_add_up_to_the_time_of_a_step(model: Path) -> None:
    engine = Engine.load(model, threads=2)
    assert set(engine.stage_seconds.values()) == {0.0}
    begin = time.perf_counter()
    engine.prefill(TEXT)
    seconds, prompt = time.perf_counter() - begin, engine.stage_seconds
    assert min(prompt.values()) > 0 and sum(prompt.values()) <= seconds
    engine.decode(1)
    assert all(engine.stage_seconds[name] > prompt[name] for name in prompt)
