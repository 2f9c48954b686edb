"""Clusters of any number, as a scheme: `kmeans3-tensor-n6` stores six values in three bits, learned, refined, written and run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bitwright
from bitwright.core import Recipe, Scheme
from bitwright.engine import Engine
from bitwright.engine.reference import forward
from bitwright.errors import SchemeError
from bitwright.fitting import FITTING
from bitwright.fitting.kmeans import kmeans_reference
from bitwright.formats import FORMATS
from bitwright.formats.codebook import normal_levels
from bitwright.guards import ends
from bitwright.models.base import Packed
from bitwright.quantization.matrix import packed_from
from bitwright.rounding import ROUNDING
from bitwright.rounding.moments import Moments
from bitwright.sparsity.pruning import Pattern, mask, strip
from cli.helpers import tensors, write_model

COUNTS = {3: "kmeans2", **dict.fromkeys(range(5, 8), "kmeans3"), **dict.fromkeys(range(9, 16), "kmeans4")}
WEIGHTS = np.random.default_rng(3).standard_t(4, (48, 64)).astype(np.float32)


def scheme_of(count: int, group: str = "tensor") -> Scheme:
    return Scheme.parse(f"{COUNTS[count]}-{group}-n{count}")


@pytest.mark.parametrize("count", COUNTS)
def test_as_many_values_are_stored(count: int) -> None:
    scheme = scheme_of(count)
    assert Scheme.parse(str(scheme)) == scheme != Scheme.parse(f"{COUNTS[count]}-tensor")
    tensor = ROUNDING["nearest"](WEIGHTS, scheme, FITTING["mse"])
    assert tensor.params is not None and tensor.params.table is not None
    assert len(np.unique(tensor.params.table)) == count and 0 in tensor.params.table
    assert count - 2 <= len(np.unique(tensor.codes)) and tensor.codes.max() < count  # nothing may be near a level in a tail
    assert scheme.stored_bits(WEIGHTS.shape) == Scheme.parse(f"{COUNTS[count]}-tensor").stored_bits(WEIGHTS.shape)


def test_levels_are_those_of_k_means_from_as_many_quantiles() -> None:
    scheme = scheme_of(6)
    params = FITTING["minmax"](WEIGHTS, scheme)
    assert params.table is not None and params.table.shape == (1, 8)
    x = WEIGHTS.reshape(-1).astype(np.float64) / (params.scale[0] * FORMATS["kmeans3"].largest)
    expected = np.rint(127 * kmeans_reference(x, np.ones_like(x), np.array(normal_levels(6))))
    np.testing.assert_array_equal(params.table[0], [*expected, expected[-1], expected[-1]])


def test_more_levels_lose_less() -> None:
    losses = []
    for spelling in (
        "kmeans2-tensor",
        *(str(scheme_of(n)) for n in (5, 6, 7)),
        "kmeans3-tensor",
        str(scheme_of(12)),
        "kmeans4-tensor",
    ):
        tensor = ROUNDING["nearest"](WEIGHTS, Scheme.parse(spelling), FITTING["mse"])
        losses.append(float(((tensor.dequantize() - WEIGHTS) ** 2).mean()))
    assert losses == sorted(losses, reverse=True)


def test_methods_that_move_levels_keep_their_number_and_zeros_stay() -> None:
    inputs = np.random.default_rng(4).standard_normal((256, 64)).astype(np.float32)
    moments = Moments(inputs.T.astype(np.float64) @ inputs / len(inputs))
    scheme, losses = scheme_of(6, "g32"), {}
    for method in ("nearest", "gptq", "refine"):
        tensor = ROUNDING[method](WEIGHTS, scheme, FITTING["mse"], moments)
        assert tensor.params is not None and tensor.params.table is not None and tensor.codes.max() <= 5
        table = tensor.params.table[0]
        assert (np.diff(table[:6]) > 0).all() and (table[6:] == table[5]).all() and 0 in table
        error = tensor.dequantize() - WEIGHTS
        losses[method] = float(np.einsum("ij,jk,ik->", error, moments.gram, error))
    assert losses["refine"] < losses["gptq"] < losses["nearest"]
    pruned = strip(WEIGHTS, mask(WEIGHTS, Pattern.parse("2:4")))
    assert not ROUNDING["nearest"](pruned, scheme_of(5), FITTING["mse"]).dequantize()[pruned == 0].any()


def test_the_last_level_is_an_end_of_the_grid() -> None:
    """A guard against saturation counts the codes there, not those that nobody uses."""
    tensor = ROUNDING["nearest"](WEIGHTS, scheme_of(6, "g32"), FITTING["mse"])
    expected = np.isin(tensor.codes.reshape(-1, 32), (0, 5)).mean(axis=1)
    np.testing.assert_array_equal(ends(tensor), expected)


def test_an_artifact_holds_them_and_the_engine_runs_them(tmp_path: Path) -> None:
    model = bitwright.load(write_model(tmp_path / "model", tensors()))
    saved = bitwright.quantize(model, Recipe.uniform("kmeans4-tensor-n11", rotate=False)).save(tmp_path / "out")
    for name in model.names():
        stored = saved.stored(name)
        if isinstance(stored, Packed) and stored.scheme.format == "kmeans4":
            assert str(stored.scheme) == "kmeans4-tensor-n11" and stored.table is not None
            assert len(np.unique(stored.table)) == 11 >= len(np.unique(stored.dequantize())) > 8
    ids = np.arange(5, 25)
    found = Engine.load(saved, activations="fp32", kv_cache="fp32", strict=True).logits(ids)
    np.testing.assert_allclose(found, forward(saved, ids), atol=2e-3)
    packed = packed_from(ROUNDING["nearest"](WEIGHTS, scheme_of(11), FITTING["mse"]))
    assert packed.table is not None and packed.table.dtype == np.int8 and packed.table.shape == (1, 16)


@pytest.mark.parametrize(
    "spelling", ["kmeans4-tensor-n8", "kmeans4-tensor-n16", "kmeans3-tensor-n4", "any4-channel-n12", "int4-g64-n12"]
)
def test_other_numbers_are_refused_with_the_cure(spelling: str) -> None:
    with pytest.raises(SchemeError, match="kmeans2-tensor-n3, kmeans3-tensor-n5 to n7, or kmeans4-tensor-n9 to n15"):
        Scheme.parse(spelling)
    with pytest.raises(SchemeError, match="stored as it is"):
        Scheme.parse("fp16-n3")
