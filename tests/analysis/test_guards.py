"""Each finding is made to happen on handmade tensors, and a sound model has none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bitwright
from bitwright.analysis import guards
from bitwright.analysis.guards import Guard, findings
from bitwright.core import Choice, QParams, QTensor, Recipe, Scheme
from bitwright.formats import FORMATS
from bitwright.models.base import Dense, Packed
from bitwright.quantization import packed_from, quantize_matrix
from handmade import make_handmade, weights

Q, GATE, EMBEDDING = "model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.gate_proj.weight", "model.embed_tokens.weight"


def found(directory: Path, recipe: Recipe, changed: dict[str, np.ndarray] | None = None) -> list[tuple[str, str, str]]:
    model = bitwright.load(make_handmade(directory, changed=changed))
    return [(one.tensor, one.kind, one.message) for one in findings(model, bitwright.quantize(model, recipe))]


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
    guard = Guard(model, recipe)
    guard.look(Q, replace(tensor, scale=scale))
    assert [(one.kind, one.message) for one in guard.findings()] == [("scale", "1 of 64 scales are NaN or infinite")]


def test_matrices_that_are_skipped(tmp_path: Path) -> None:
    some = found(tmp_path / "a", Recipe((Choice("*.mlp.*", Scheme.parse("int4-g64")),)))
    assert len(some) == 2 * 4 and all("self_attn" in name and kind == "skipped" for name, kind, _ in some)
    assert found(tmp_path / "b", Recipe((Choice(Q, Scheme.parse("fp16")), Choice("*", Scheme.parse("int4-g64"))))) == []
    model = bitwright.load(make_handmade(tmp_path / "c"))
    guard = Guard(model, Recipe.uniform("int4-g64"))
    guard.look(Q, model.stored(Q))
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
    assert list(guards.jumps_of({"a": 0.1, "b": 0.1, "c": 0.31})) == ["c"]
    assert guards.jumps_of({"a": 0.1, "b": 0.1, "c": 0.29}) == guards.jumps_of({"a": 0.1, "b": 9.0}) == {}
    assert guards.jumps_of(dict.fromkeys("abc", 0.0) | {"d": 0.0}) == {}


def test_the_jump_is_told_of_the_tensor(tmp_path: Path) -> None:
    model = bitwright.load(make_handmade(tmp_path))
    guard = Guard(model, Recipe.uniform("int4-g64"))
    quantized = bitwright.quantize(model, guard.recipe)
    for name in quantized.names():
        guard.look(name, quantized.stored(name))
    (kind,) = [errors for errors in guard._errors.values() if Q in errors]
    assert set(kind) == {Q, Q.replace("0", "1")}
    kind |= {"third": 1.0, "fourth": kind[Q]}
    assert [(one.tensor, one.kind) for one in guard.findings()] == [("third", "error")]


def test_groups_that_saturate() -> None:
    random = np.random.default_rng(1)
    codes = random.integers(1, 15, (40, 128)).astype(np.uint8)
    tensor = QTensor(codes, QParams(np.ones(80, np.float32)), Scheme.parse("int4-g64"))
    assert not guards.saturated(packed_from(tensor))
    codes[:, :28] = random.choice([0, 15], (40, 28))  # of the first group in each row
    assert guards.saturated(packed_from(tensor)) == "50 % of the groups saturate: 22 % of codes at the ends of the grid"
    codes[:, 24:28] = 8
    assert not guards.saturated(packed_from(tensor))  # 3 in 8 are not yet too much
