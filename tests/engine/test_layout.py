"""The engine holds every stored weight exactly, but for tables of real levels, which are off by at most what layout.py says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bitwright
from bitwright import _native
from bitwright.core import Choice, Recipe, Scheme
from bitwright.engine import Engine
from bitwright.engine.layout import BYTES, CODES, FLOATS, GGUF_CODES, LOOK_UP, decoded, held_as, integers_of
from bitwright.engine.weights import only_embedding
from bitwright.errors import SchemeError
from bitwright.formats import FORMATS, NAMED
from bitwright.formats.table import Table
from bitwright.models.base import Dense, Packed, WithMinimum
from bitwright.models.gguf_types import TENSOR_TYPES, TensorType, decode
from bitwright.quantization.matrix import quantize_matrix
from engine.held import held_weights
from handmade import make_handmade

WEIGHTS = np.random.default_rng(5).standard_t(4, (16, 96)).astype(np.float32)
ROUNDED = {"nf4", "nf3", "nf2"}
HELD = {  # in groups of 32
    CODES: {*(f"int{bits}" for bits in range(2, 9)), *(f"fixed{bits}" for bits in range(2, 9))},
    LOOK_UP: ROUNDED
    | {"pot4", "pot3", "apot4", "fp4e2m1", "pwl4", "neural4", "neural3", "sneural4", "sneural3"}
    | {f"{kind}{bits}" for kind in ("kmeans", "any") for bits in (4, 3, 2)},
    BYTES: {"apot5", "fp6e2m3", "local4", "local3", "local2"},
    FLOATS: {"fp8e4m3", "fp8e5m2", "fp6e3m2", "pwl8", "pwl6", "fp32"},
    "fp16": {"fp16"},
    "bf16": {"bf16"},
}


def schemes() -> list[Scheme]:
    """Every scaled format with every type of scale, in groups of every kind that it can have."""
    found = []
    for name, form in FORMATS.items():
        for scale in form.scales if form.scaled else ():
            for group in (32, 16, 0, -1):
                try:
                    found.append(Scheme(name, group, scale=scale))
                except SchemeError:
                    continue
    return [*found, *(Scheme(f"int{bits}", 32, affine=True) for bits in range(2, 9))]


def packed(scheme: Scheme, rotate: bool = False) -> Packed:
    stored = quantize_matrix("a matrix", Dense("fp32", WEIGHTS), Choice("*", scheme, fitting="minmax", rotate=rotate))
    assert isinstance(stored, Packed)
    return stored


def test_the_list_of_formats_is_sorted_by_how_they_are_held() -> None:
    kinds = {name: held_as(Scheme(name, 32, scale=form.scales[0]), 96) for name, form in FORMATS.items()}
    assert {kind: {name for name in FORMATS if kinds[name] == kind} for kind in HELD} == HELD
    assert {name: held_as(Scheme.parse(name), 96) for name in NAMED} == {
        "mxfp8": FLOATS,
        "mxfp6": BYTES,
        "mxfp4": LOOK_UP,
        "nvfp4": FLOATS,
    }


@pytest.mark.parametrize("scheme", schemes(), ids=str)
def test_what_is_held_is_what_was_stored(scheme: Scheme) -> None:
    stored = packed(scheme)
    assert (integers_of(stored) is None) == (held_as(scheme, 96) == FLOATS)
    if scheme.format not in ROUNDED:
        np.testing.assert_array_equal(held_weights(stored), stored.dequantize())


@pytest.mark.parametrize("spelling", ["any4-g32", "any3-channel", "any2-g32", "local4-channel"])
def test_codes_stay_codes_where_rows_have_tables(spelling: str) -> None:
    """A panel of 16 rows takes its codes, its tables of 16 bytes, and its fp16 scales, which fill cache lines of 64 bytes."""
    scheme = Scheme.parse(spelling)
    stored, bits = packed(scheme), FORMATS[scheme.format].bits
    integers, native = integers_of(stored), _native.Model()
    assert integers is not None and integers.bits == bits and integers.codes.tobytes() == stored.codes.tobytes()
    native.hidden, native.vocabulary = stored.shape[1], stored.shape[0]
    only_embedding(native, stored)
    assert native.bytes_per_token == stored.codes.nbytes + 16 * 16 + -(-stored.scale.nbytes // 64) * 64


@pytest.mark.parametrize(
    ("shape", "bits", "fault"),
    [
        ((15, 16), 4, "one for each row"),
        ((0, 16), 4, "one for each row"),
        ((16, 8), 3, "16 levels"),
        ((16, 16), 8, "2 to 4 bits"),
    ],
)
def test_tables_of_another_shape_are_refused(shape: tuple[int, int], bits: int, fault: str) -> None:
    codes, scales = np.zeros((16, 4 * bits), np.uint8), np.ones(16, np.float32)
    weights = _native.Weights(_native.Model())
    with pytest.raises(ValueError, match=fault):
        weights.add_packed("embedding", 0, codes, scales, None, bits, 32, 32, table=np.zeros(shape, np.uint8))


@pytest.mark.parametrize("name", sorted(ROUNDED))
@pytest.mark.parametrize("group", ["g32", "channel", "tensor"])
def test_real_levels_are_off_by_half_a_unit_at_most(name: str, group: str) -> None:
    """By that much, and not by less: nf4's and nf3's worst levels are off by more than nine tenths of it."""
    stored, form = packed(Scheme.parse(f"{name}-{group}")), FORMATS[name]
    assert isinstance(form, Table)
    bound = np.abs(stored.scale.astype(np.float32)) * form.largest / 254
    off = np.abs(held_weights(stored) - stored.dequantize()).reshape(len(bound), -1).max(axis=1)
    assert (off <= bound * (1 + 1e-5)).all() and off.max() > 0.6 * bound.min()


@pytest.mark.parametrize("name", sorted(ROUNDED))
def test_rounded_levels_stay_far_apart(name: str) -> None:
    """Half a unit is at most a twentieth of the gap between neighbours, so that rounding adds little to the format's error."""
    form = FORMATS[name]
    assert isinstance(form, Table) and form.largest / 254 <= np.diff(form.ordering.levels[0]).min() / 20


def test_rows_of_a_matrix_are_held_as_in_the_whole() -> None:
    for spelling in ("any4-g32", "local3-g32", "local2-channel", "nf4-g32", "int4-g16-srow5", "mxfp6"):
        stored = packed(Scheme.parse(spelling), rotate=True)
        np.testing.assert_array_equal(held_weights(stored.rows(3, 9)), held_weights(stored)[3:9])


def test_logits_of_a_rounded_head_are_within_the_bound(tmp_path: Path) -> None:
    """Each is off by at most the sum of |input| * scale / 254 over its columns."""
    model = bitwright.load(make_handmade(tmp_path / "model"))
    saved = bitwright.quantize(model, Recipe((Choice("lm_head.weight", Scheme.parse("nf4-g32")),))).save(tmp_path / "out")
    engine, head, tokens = Engine.load(saved, activations="fp32"), saved.stored("lm_head.weight"), list(range(5, 25))
    assert isinstance(head, Packed)
    hidden = engine.hidden(tokens).astype(np.float64)
    scale = np.abs(head.scale.astype(np.float64)).reshape(head.shape[0], -1).repeat(32, axis=1)
    bound = np.abs(hidden) @ scale.T / 254
    off = np.abs(engine.logits(tokens) - hidden @ head.dequantize().T)
    assert (off <= bound + 1e-5).all() and (off > 0.05 * bound).any()


def test_what_the_engine_decodes_is_known_before(tmp_path: Path) -> None:
    model = bitwright.load(make_handmade(tmp_path / "model"))
    assert decoded(model) == {}
    choices = Choice("*.q_proj.weight", Scheme.parse("nvfp4")), Choice("*.k_proj.weight", Scheme.parse("fp32"))
    rest = Choice("lm_head.weight:0-100", Scheme.parse("mxfp8")), Choice("lm_head.weight:100-320", Scheme.parse("fp32"))
    saved = bitwright.quantize(model, Recipe((*choices, *rest, Choice("*", Scheme.parse("nf4-g32"))))).save(tmp_path / "out")
    assert decoded(saved) == {f"model.layers.{layer}.self_attn.q_proj.weight": ["nvfp4"] for layer in range(2)} | {
        "lm_head.weight": ["mxfp8"]
    }


@pytest.mark.parametrize("kind", [kind for kind in TENSOR_TYPES.values() if kind.decodable], ids=lambda kind: kind.name)
def test_types_of_gguf_are_held_as_they_are_read(kind: TensorType) -> None:
    raw = np.zeros((2, 256 // kind.block * kind.size), np.uint8)
    assert isinstance(decode(kind.name, raw, (2, 256)), Packed | WithMinimum) == (kind.name.lower() in GGUF_CODES)
