"""The table of costs: whole, kept, believed only where it was measured. And the memory that a model takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bitwright.allocation import device
from bitwright.allocation.device import DeviceCosts, schemes_of, token_seconds
from bitwright.allocation.memory import Running, buffer_bytes, cache_bytes, matrix_bytes, process_bytes, weight_bytes
from bitwright.allocation.mix import Mix, slowness
from bitwright.allocation.stand_in import MixedStandIn, StandIn, repeated, role_shapes, sample_of
from bitwright.core import Choice, Scheme
from bitwright.engine import CACHES, Engine, Options
from bitwright.errors import CostError, SchemeError
from bitwright.models import load
from bitwright.models.architecture import Architecture, Rope
from bitwright.models.base import Packed
from bitwright.models.row_blocks import stored_blocks
from handmade import make_handmade

SIZES = {"hidden_size": 64, "intermediate_size": 128, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 16, "vocab_size": 320}
TINY = Architecture(
    family="llama",
    **SIZES,
    context_length=64,
    ropes=(Rope(10000.0, 16),),
    rope_of_layer=(0, 0),
    window_of_layer=(0, 32),
    attention_scale=0.25,
    tied_head=True,
)
SCHEMES = [
    *("int4-g64", "int8-channel", "int4-g32-srow5", "int3-g32-affine", "int5-tensor", "nvfp4", "kmeans4-tensor"),
    *("nf4-g64", "fp4e2m1-g32", "fp16", "bf16", "fp32", "int4-g16"),
]


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("BITWRIGHT_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("spelling", SCHEMES)
@pytest.mark.parametrize("rotated", [True, False])
def test_bytes_are_those_of_the_engine(spelling: str, rotated: bool) -> None:
    scheme = Scheme.parse(spelling)
    stand_in = StandIn(TINY, scheme, rotated)
    engine = Engine(stand_in, Options(threads=1))  # type: ignore[arg-type]
    shapes = role_shapes(TINY)
    layers = sum(matrix_bytes(scheme, shape, rotated) for role, shape in shapes.items() if role != "head")
    assert TINY.layers * layers + matrix_bytes(scheme, shapes["head"], rotated) == engine.weight_bytes
    assert weight_bytes(stand_in) == engine.weight_bytes  # type: ignore[arg-type]
    assert np.isfinite(engine.prefill([1, 2, 3])).all()


@pytest.mark.parametrize("spelling", SCHEMES)
def test_repeated_rows_are_those_of_the_sample(spelling: str) -> None:
    sample = sample_of(Scheme.parse(spelling), 64, rotated=True)
    tall = repeated(sample, 40)
    assert tall.shape == (40, 64)
    rows = sample.dequantize()
    assert np.array_equal(tall.dequantize(), np.concatenate([rows, rows, rows[:8]]))
    assert not isinstance(tall, Packed) or tall.rotation == 64


@pytest.mark.parametrize("kv_cache", CACHES)
def test_memory_beside_the_weights_is_what_the_engine_says(kv_cache: str) -> None:
    engine = Engine(StandIn(TINY, Scheme.parse("int8-channel"), True), Options(threads=2, kv_cache=kv_cache))  # type: ignore[arg-type]
    running = Running(engine.context, 2, kv_cache)
    assert cache_bytes(TINY, running) == engine.cache_bytes
    assert buffer_bytes(TINY, running) == engine.buffer_bytes + 4 * TINY.vocab_size


def test_a_process_takes_memory(tmp_path: Path) -> None:
    assert 10_000_000 < process_bytes(make_handmade(tmp_path / "model")) < 1_000_000_000


def test_a_token_costs_what_was_measured() -> None:
    """The sum over the matrices is the sum over the stages, whichever matrices share a shape."""
    int4, int8 = Scheme.parse("int4-g64"), Scheme.parse("int8-channel")
    costs = DeviceCosts.measured(TINY, [int4, int8], threads=1)
    for scheme in (int4, int8):
        stages = [costs.figures[costs._name("decode", scheme, True, stage)] for stage in device.STAGES]
        *layer, head = stages
        parts = [costs.decode_seconds(scheme, shape) for shape in role_shapes(TINY).values()]
        assert sum(parts) == pytest.approx(sum(layer) + head) and min(parts) > 0
        stand_in = StandIn(TINY, scheme, True)
        expected = TINY.layers * sum(layer) + head + costs.other_seconds(TINY, 20)
        assert token_seconds(costs, stand_in, 20) == pytest.approx(expected)  # type: ignore[arg-type]
        assert schemes_of(stand_in) == {True: [scheme]}  # type: ignore[arg-type]
        assert costs.decode_seconds(scheme, (128 + 128, 64)) == pytest.approx(layer[2])  # gate and up, stored as one


def test_attention_is_a_line_that_windows_end(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = DeviceCosts("here", 1, "S", device._shares(TINY), {})
    figures = {"attention of fp16 near": 2.0, "attention of fp16 far": 6.0, "positions near": 10.0, "positions far": 30.0}
    costs = replace(costs, figures={f"S, {name}": value for name, value in figures.items()} | {"S, rest": 100.0})
    assert costs.other_seconds(TINY, 10) == pytest.approx(100 + 2 + 2)
    assert costs.other_seconds(TINY, 40) == pytest.approx(100 + 8 + 6.4)  # the second layer sees 32


def test_prompts_take_at_least_a_token_and_heads_only_one() -> None:
    int8 = Scheme.parse("int8-channel")
    costs = DeviceCosts.measured(TINY, [int8], threads=1)
    down, head = (64, 128), (320, 64)
    whole = costs.prefill_seconds(int8, down, device.PROMPT)
    assert costs.prefill_seconds(int8, down, 2 * device.PROMPT) == pytest.approx(max(2 * whole, costs.decode_seconds(int8, down)))
    assert costs.prefill_seconds(int8, down, 1) >= costs.decode_seconds(int8, down)
    assert costs.prefill_seconds(int8, head, 1000) == costs.decode_seconds(int8, head)


def test_what_is_known_is_not_measured_again(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    int4, int8 = Scheme.parse("int4-g64"), Scheme.parse("int8-channel")
    told: list[tuple[int, int]] = []
    first = DeviceCosts.measured(TINY, [int8], threads=1)
    measured: list[str] = []
    measure = DeviceCosts._measure
    monkeypatch.setattr(DeviceCosts, "_measure", lambda *a: (measured.extend(map(str, a[2])), measure(*a))[1])
    again = DeviceCosts.measured(TINY, [int8, int4], 1, lambda *done: told.append(done))
    assert measured == ["int4-g64"] and told == [(step, 1 + device.ROUNDS) for step in range(1, 2 + device.ROUNDS)]
    assert again.decode_seconds(int8, (64, 64)) == first.decode_seconds(int8, (64, 64))
    DeviceCosts.measured(TINY, [int8], threads=1, rotated=False)
    DeviceCosts.measured(TINY, [int8], threads=2)
    DeviceCosts.measured(replace(TINY, layers=1), [int8], threads=1)
    assert measured[1:] == ["int8-channel"] * 3
    monkeypatch.setattr(device, "__version__", "another")
    DeviceCosts.measured(TINY, [int8], threads=1)
    assert len(measured) == 5
    assert [path.name for path in cache.iterdir()] == [device.FILE]


def test_what_was_not_measured_is_refused() -> None:
    int8 = Scheme.parse("int8-channel")
    costs = DeviceCosts.measured(TINY, [int8], threads=1)
    with pytest.raises(CostError, match="int4-g64 rotated' was not measured"):
        costs.decode_seconds(Scheme.parse("int4-g64"), (64, 64))
    with pytest.raises(CostError, match="of int8-channel' was not measured"):
        costs.decode_seconds(int8, (64, 64), rotated=False)
    with pytest.raises(CostError, match=r"no costs of a matrix of 7 x 64.*it has 64 x 64, 32 x 64"):
        costs.decode_seconds(int8, (7, 64))
    with pytest.raises(SchemeError, match="does not divide"):
        DeviceCosts.measured(TINY, [Scheme.parse("int4-g48")], threads=1)


def test_costs_of_another_machine_are_read_and_not_measured(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scheme = Scheme.parse("int8-channel")
    here = DeviceCosts.measured(TINY, [scheme], threads=1)
    copied = cache / "copied.json"
    text = (cache / device.FILE).read_text("utf-8")
    copied.write_text(text.replace("1 threads of ", "3 threads of other").replace('"cores": ', '"cores": 9'), "utf-8")
    monkeypatch.setattr(DeviceCosts, "_measure", lambda *_: pytest.fail("measured"))
    there = DeviceCosts.read(copied, TINY, [scheme])
    assert there.threads == 3 and ", 3 threads of other" in there.shape and " 9" in there.machine
    shape = role_shapes(TINY)["down"]
    assert there.decode_seconds(scheme, shape) == here.decode_seconds(scheme, shape)
    assert there.other_seconds(TINY, 20) == here.other_seconds(TINY, 20)


def test_costs_of_another_machine_that_lack_something_are_refused(cache: Path) -> None:
    DeviceCosts.measured(TINY, [Scheme.parse("int8-channel")], threads=1)
    file = cache / device.FILE
    with pytest.raises(CostError, match="int4-g64"):
        DeviceCosts.read(file, TINY, [Scheme.parse("int4-g64")])
    with pytest.raises(CostError, match="plan this model once"):
        DeviceCosts.read(file, replace(TINY, layers=3, rope_of_layer=(0,) * 3, window_of_layer=(0,) * 3), [])
    (cache / "bad.json").write_text("[]", "utf-8")
    for bad in (cache / "bad.json", cache / "absent.json"):
        with pytest.raises(CostError, match="cannot read costs"):
            DeviceCosts.read(bad, TINY, [])


def test_slowness_is_of_what_was_measured(cache: Path) -> None:
    int4, int8 = Scheme.parse("int4-g64"), Scheme.parse("int8-channel")
    costs = DeviceCosts.measured(TINY, [int8], threads=1)
    now = slowness(costs, StandIn(TINY, int8, True), "int8", 16)  # type: ignore[arg-type]
    assert now is not None and now() > 0
    assert slowness(costs, StandIn(TINY, int4, True), "int8", 16) is None  # type: ignore[arg-type]


def test_a_mix_is_stored_as_its_choices_say_and_timed_at_the_pace_of_the_costs(tmp_path: Path) -> None:
    model = load(make_handmade(tmp_path / "model"))
    int4, int8 = Scheme.parse("int4-g16"), Scheme.parse("int8-channel")
    head, down = model.roles()["head", -1].name, model.roles()["down", 0].name
    rows = model.shape(head)[0]
    spellings = {f"{head}:0-16": int8, f"{head}:16-{rows}": int4, down: int8}
    mixed = MixedStandIn(model, {name: Choice(name, scheme, rotate=True) for name, scheme in spellings.items()})
    assert [str(block.scheme) for block in stored_blocks(mixed.stored(head))] == ["int8-channel", "int4-g16"]  # type: ignore[union-attr]
    assert mixed.stored(head).shape == model.shape(head) and mixed.stored(down).shape == model.shape(down)
    assert np.array_equal(mixed.read("model.norm.weight"), model.read("model.norm.weight"))
    costs = DeviceCosts.measured(model.architecture, [int8], threads=1)
    mix = Mix.timed(costs, mixed, "int8", 8)
    assert mix is not None and 0 < mix.seconds < 1 and mix.slowness() > 0
    assert 0 < mix.now < 1 and 0 < mix.prompt < 1 and mix.prompt_slowness() > 0
    assert Mix.timed(DeviceCosts("", 1, "S", {}, {}), mixed, "int8", 8) is None
