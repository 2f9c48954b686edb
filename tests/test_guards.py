"""Each finding is made to happen on handmade tensors, and a sound model has none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bitwright
from bitwright import guards
from bitwright.calibration.text import Source
from bitwright.core import Choice, QParams, QTensor, Recipe, Scheme
from bitwright.errors import FindingError
from bitwright.formats import FORMATS
from bitwright.guards import Guard
from bitwright.models.base import Dense, Packed
from bitwright.quantization.matrix import packed_from, quantize_matrix
from handmade import make_handmade, weights

Q, GATE, EMBEDDING = "model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.gate_proj.weight", "model.embed_tokens.weight"


def found(directory: Path, recipe: Recipe, changed: dict[str, np.ndarray] | None = None) -> list[tuple[str, str, str]]:
    """In what is saved, as the result says it."""
    quantized = bitwright.quantize(bitwright.load(make_handmade(directory / "model", changed=changed)), recipe)
    assert quantized.findings == ()
    quantized.save(directory / "saved")
    return [(one.tensor, one.kind, one.message) for one in quantized.findings]


@pytest.mark.parametrize("spelling", ["int8-channel", "int4-g64", "int4-g32-affine", "int3-g32", "int2-g16", "nf4-g64", "mxfp4"])
def test_a_sound_model_has_none(tmp_path: Path, spelling: str) -> None:
    assert found(tmp_path, Recipe.uniform(spelling)) == []


@pytest.mark.parametrize("spelling", [name + ("-g32" if format.scaled else "") for name, format in FORMATS.items()])
def test_random_weights_do_not_saturate(spelling: str) -> None:
    try:
        scheme = Scheme.parse(spelling)
    except bitwright.errors.SchemeError:
        scheme = Scheme.parse(spelling.replace("g32", "tensor"))
    tensor = Dense("fp32", np.random.default_rng(3).normal(0, 0.1, (16, 256)).astype(np.float32))
    made = quantize_matrix("x", tensor, Choice("*", scheme))
    assert isinstance(made, Dense) or not guards.saturated(made)
    assert not guards.dead_rows(tensor, made, padded=False) and not guards.bad_scales(made)


@pytest.mark.parametrize("spelling", ["int4-g64", "int3-g32", "int8-channel", "nf4-g64", "fp16"])
def test_dead_rows_and_an_empty_matrix(tmp_path: Path, spelling: str) -> None:
    rows, nothing = weights()[Q], np.zeros_like(weights()[GATE])
    rows[[3, 40]] = 0
    padded = weights()[EMBEDDING]
    padded[-5:] = 0  # the usual padding of a vocabulary
    assert found(tmp_path, Recipe.uniform(spelling), {Q: rows, GATE: nothing, EMBEDDING: padded}) == [
        (Q, "dead", "2 of 64 rows are all zero: 3, 40"),
        (GATE, "dead", "all weights are zero"),
    ]


def test_rows_that_quantizing_empties() -> None:
    before = np.ones((6, 64), np.float32)
    after = QTensor(np.full((6, 64), 8, np.uint8), QParams(np.ones(6, np.float32)), Scheme.parse("int4-g64"))  # level 0
    assert guards.dead_rows(Dense("fp32", before), packed_from(after), padded=True) == "all weights are zero"
    after.codes[2:] = 9
    assert guards.dead_rows(Dense("fp32", before), packed_from(after), padded=True) == "2 of 6 rows are all zero: 0, 1"
    without_scale = replace(after, params=QParams(np.array([1, 1, 0, 1, 1, 1], np.float32)))
    assert guards.dead_rows(Dense("fp32", before), packed_from(without_scale), padded=True).endswith("zero: 0, 1, 2")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scales_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    model = bitwright.load(make_handmade(tmp_path))
    recipe = Recipe.uniform("int4-g64")
    tensor = bitwright.quantize(model, recipe).stored(Q)
    assert isinstance(tensor, Packed)
    scale = tensor.scale.copy()
    scale[5] = value
    guard = Guard(model, recipe, {})
    guard.look(Q, model.stored(Q), replace(tensor, scale=scale))
    assert [(one.kind, one.message) for one in guard.findings()] == [("scale", "1 of 64 scales are NaN or infinite")]


def test_matrices_that_are_skipped(tmp_path: Path) -> None:
    some = found(tmp_path / "a", Recipe((Choice("*.mlp.*", Scheme.parse("int4-g64")),)))
    assert len(some) == 2 * 4 and all("self_attn" in name and kind == "skipped" for name, kind, _ in some)
    assert found(tmp_path / "b", Recipe((Choice(Q, Scheme.parse("fp16")), Choice("*", Scheme.parse("int4-g64"))))) == []
    model = bitwright.load(make_handmade(tmp_path / "c"))
    guard = Guard(model, Recipe.uniform("int4-g64"), {})
    guard.look(Q, model.stored(Q), model.stored(Q))
    assert [one.message for one in guard.findings()] == ["stayed in fp16 although the recipe says int4-g64"]


def test_a_layer_whose_error_jumps(tmp_path: Path) -> None:
    outlier = np.full((64, 64), 1e-3, np.float32) * np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    outlier[:, 7] = 0.02  # one column sets the scale, and the others are lost
    errors = {}
    for layer, matrix in enumerate([weights()[Q]] * 4 + [outlier]):
        source = Dense("fp32", matrix)
        made = quantize_matrix(Q, source, Choice("*", Scheme.parse("int8-channel"), fitting="minmax"))
        assert isinstance(made, Packed)
        errors[str(layer)] = guards.relative_error(source, made)
        expected = np.linalg.norm(made.dequantize() - matrix) / np.linalg.norm(matrix)  # of all rows
        assert errors[str(layer)] == pytest.approx(expected, rel=0.2)
    assert list(guards.jumps_of({"a": 0.1, "b": 0.1, "c": 0.31}, "weight")) == ["c"]
    assert guards.jumps_of({"a": 0.1, "b": 0.1, "c": 0.29}, "weight") == guards.jumps_of({"a": 0.1, "b": 9.0}, "weight") == {}
    assert guards.jumps_of(dict.fromkeys("abc", 0.0) | {"d": 0.0}, "weight") == {}


def test_the_output_error_is_that_of_the_layers_outputs() -> None:
    random = np.random.default_rng(4)
    inputs = random.normal(size=(500, 64)) * np.where(np.arange(64) == 5, 30, 1)  # one channel is all that counts
    source = Dense("fp32", random.normal(size=(24, 64)).astype(np.float32))
    made = quantize_matrix(Q, source, Choice("*", Scheme.parse("int3-g32")))
    lost, whole = ((matrix @ inputs.T) for matrix in (made.dequantize() - source.values, source.values))
    expected = np.linalg.norm(lost) / np.linalg.norm(whole)
    assert guards.relative_error(source, made, inputs.T @ inputs / len(inputs)) == pytest.approx(expected, rel=1e-5)
    assert guards.relative_error(source, made) != pytest.approx(expected, rel=0.01)
    assert guards.relative_error(source, made, np.eye(64)) == pytest.approx(guards.relative_error(source, made), rel=1e-5)
    assert guards.relative_error(source, made, np.zeros((64, 64))) == 0


LIKE_Q = [Q.replace("0", str(layer)) for layer in range(4)]


@pytest.mark.parametrize(("known", "told"), [(4, ("output", LIKE_Q[1])), (3, ("weight", LIKE_Q[2])), (0, ("weight", LIKE_Q[2]))])
def test_the_jump_is_told_of_the_tensor(tmp_path: Path, known: int, told: tuple[str, str]) -> None:
    """By output errors, where those of all its kind are known."""
    model = bitwright.load(make_handmade(tmp_path))
    output_errors = dict(zip(LIKE_Q, (0.01, 0.05, 0.01, 0.01), strict=True))
    guard = Guard(model, Recipe.uniform("int4-g64"), {name: output_errors[name] for name in LIKE_Q[:known]})
    made = quantize_matrix(Q, model.stored(Q), Choice("*", Scheme.parse("int4-g64")))
    assert isinstance(made, Packed)
    far = replace(made, scale=made.scale * 4)
    for name in LIKE_Q:
        guard.look(name, model.stored(Q), far if name == LIKE_Q[2] else made)
    (jump,) = [one for one in guard.findings() if one.kind == "error"]
    assert jump.tensor == told[1] and jump.message.startswith(f"relative {told[0]} error ")


def test_rounding_by_inputs_hands_over_the_output_error(tmp_path: Path) -> None:
    """`W x` of one channel is all there is where the norm before leaves no other; the error of its column is the layer's."""
    norm = np.zeros(64, np.float32)
    norm[9] = 1
    model = bitwright.load(make_handmade(tmp_path / "model", changed={"model.layers.0.input_layernorm.weight": norm}))
    text = tmp_path / "text.txt"
    text.write_text("A text to calibrate on. " * 100, "utf-8")
    quantized = bitwright.quantize(model, Recipe.uniform("int4-g32", "gptq", rotate=False), Source(str(text), 2, 32))
    quantized.calibrate()
    before, after = model.read(Q)[:, 9], quantized.read(Q)[:, 9]
    rows = np.concatenate([np.arange(*block) for block in guards.sampled(64)])
    expected = np.linalg.norm((after - before)[rows]) / np.linalg.norm(before[rows])
    assert quantized._output_errors[Q] == pytest.approx(expected, rel=1e-3)
    assert quantized._output_errors.keys() == {name for name in model.names() if "proj" in name or "lm_head" in name}


def test_strict_saves_nothing_and_the_result_says_why(tmp_path: Path) -> None:
    model = bitwright.load(make_handmade(tmp_path / "model", changed={GATE: np.zeros_like(weights()[GATE])}))
    quantized = bitwright.quantize(model, Recipe.uniform("int4-g64"))
    with pytest.raises(FindingError, match="1 finding"):
        quantized.save(tmp_path / "out", strict=True)
    assert [one.tensor for one in quantized.findings] == [GATE] and not (tmp_path / "out").exists()
    quantized.save(tmp_path / "out")
    assert [one.tensor for one in quantized.findings] == [GATE] and (tmp_path / "out").is_dir()


def test_groups_that_saturate() -> None:
    random = np.random.default_rng(1)
    codes = random.integers(1, 15, (40, 128)).astype(np.uint8)
    tensor = QTensor(codes, QParams(np.ones(80, np.float32)), Scheme.parse("int4-g64"))
    assert not guards.saturated(packed_from(tensor))
    codes[:, :28] = random.choice([0, 15], (40, 28))  # of the first group in each row
    assert guards.saturated(packed_from(tensor)) == "50 % of the groups saturate: 22 % of codes at the ends of the grid"
    codes[:, 24:28] = 8
    assert not guards.saturated(packed_from(tensor))  # 3 in 8 are not yet too much
