"""A head and an embedding whose rows are stored in blocks: one matrix to everybody, each block as its own choice says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitwright
from bitwright.calibration.text import Source
from bitwright.core import Choice, Recipe, Scheme
from bitwright.engine import Engine, Sampling
from bitwright.errors import ManifestError, RecipeError
from bitwright.models.base import LanguageModel, Packed
from bitwright.models.row_blocks import Stacked, blocks_of, whole_names
from handmade import VOCABULARY, make_handmade

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
FIRST, LAST = (0, 37), (37, VOCABULARY)  # of no panel's size


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return bitwright.load(make_handmade(tmp_path_factory.mktemp("models") / "model", tied=request.param))


def recipe(model: LanguageModel, first: str, last: str, method: str = "nearest") -> Recipe:
    """The same blocks in both; the rest at int8-channel."""
    tables = [name for name in (EMBEDDING, HEAD) if name in model.names()]
    schemes = [(f"{name}:{begin}-{end}", of) for name in tables for (begin, end), of in ((FIRST, first), (LAST, last))]
    choices = [Choice(pattern, Scheme.parse(of), method, rotate=True) for pattern, of in schemes]
    return Recipe((*choices, Choice("*", Scheme.parse("int8-channel"), rotate=True)))


def test_blocks_of_one_scheme_are_the_matrix_without_blocks(model: LanguageModel, tmp_path: Path) -> None:
    """Bit for bit, in what is read and in what the engine answers."""
    whole = bitwright.quantize(model, Recipe.uniform("int8-channel")).save(tmp_path / "whole")
    blocks = bitwright.quantize(model, recipe(model, "int8-channel", "int8-channel")).save(tmp_path / "blocks")
    assert list(blocks.names()) == list(whole.names()) == list(model.names())
    for name in model.names():
        assert blocks.shape(name) == whole.shape(name)
        assert blocks.stored_bits(name) == whole.stored_bits(name)
        assert blocks.scheme_of(name) == whole.scheme_of(name)
        np.testing.assert_array_equal(blocks.read(name), whole.read(name))
    for activations in ("int8", "int16", "fp32"):
        expected, found = (Engine.load(each, activations=activations) for each in (whole, blocks))  # type: ignore[arg-type]
        prompt = [3, 36, 37, VOCABULARY - 1]
        np.testing.assert_array_equal(found.prefill(prompt), expected.prefill(prompt))
        assert list(found.generate(prompt, Sampling(8))) == list(expected.generate(prompt, Sampling(8)))


@pytest.mark.parametrize("method", ["nearest", "gptq"])
def test_each_block_has_its_own_scheme(model: LanguageModel, method: str, tmp_path: Path) -> None:
    pytest.importorskip("torch", exc_type=ImportError)
    (tmp_path / "text.txt").write_text("words that are read to calibrate, again and again. " * 40, "utf-8")
    calibration = Source(str(tmp_path / "text.txt"), 2, 32)
    quantized = bitwright.quantize(model, recipe(model, "int6-g32", "int3-g32", method), calibration)
    saved = quantized.save(tmp_path / "out")
    assert sum(path.stat().st_size for path in (tmp_path / "out").iterdir()) == quantized.size_bytes()
    stored = saved.stored(EMBEDDING)
    assert isinstance(stored, Stacked) and all(isinstance(block, Packed) for block in stored.blocks)
    assert saved.scheme_of(EMBEDDING) == "int6-g32 + int3-g32"
    first, last = (np.abs(saved.read(EMBEDDING) - model.read(EMBEDDING))[slice(*rows)].mean() for rows in (FIRST, LAST))
    assert first < last / 4
    np.testing.assert_array_equal(stored.rows(30, 50).dequantize(), saved.read(EMBEDDING)[30:50])
    expected = Engine.load(saved, activations="fp32").prefill([1, 200, 36])
    from bitwright.engine.reference import forward

    np.testing.assert_allclose(expected, forward(saved, [1, 200, 36])[-1], atol=2e-3)


def test_an_artifact_with_blocks_is_written_again_byte_for_byte(model: LanguageModel, tmp_path: Path) -> None:
    saved = bitwright.quantize(model, recipe(model, "int6-g32", "nf4-g32")).save(tmp_path / "out")
    again = saved.save(tmp_path / "again")
    assert [path.read_bytes() for path in sorted(tmp_path.glob("out/*"))] == [
        path.read_bytes() for path in sorted(tmp_path.glob("again/*"))
    ]
    smaller = bitwright.quantize(again, Recipe.uniform("int4-g32"))  # blocks are no property of the model
    assert smaller.scheme_of(EMBEDDING) == ("int8-channel" if HEAD not in model.names() else "int4-g32")


@pytest.mark.parametrize(
    "blocks",
    [
        {"0-37": 37, "38-320": 282},  # a gap
        {"0-37": 37, "30-320": 290},  # rows twice
        {"0-37": 36, "37-320": 283},  # fewer rows than the name says
        {"37-320": 283},  # no beginning
    ],
)
def test_manifests_that_lie_about_blocks_are_refused(blocks: dict[str, int], model: LanguageModel, tmp_path: Path) -> None:
    bitwright.quantize(model, recipe(model, "int8-channel", "int8-channel")).save(tmp_path / "out")
    path = tmp_path / "out/manifest.json"
    fields: dict[str, Any] = json.loads(path.read_text())
    line = fields["tensors"][f"{EMBEDDING}:0-37"]
    fields["tensors"] = {name: line for name, line in fields["tensors"].items() if not name.startswith(EMBEDDING)}
    for rows, count in blocks.items():
        fields["tensors"][f"{EMBEDDING}:{rows}"] = line | {"shape": [count, line["shape"][1]]}
    path.write_text(json.dumps(fields))
    with pytest.raises(ManifestError, match="block"):
        bitwright.load(tmp_path / "out")


@pytest.mark.parametrize(
    ("patterns", "match"),
    [
        ([f"{EMBEDDING}:0-37"], "end at row 37, and it has 320 rows"),
        ([f"{EMBEDDING}:0-37", f"{EMBEDDING}:40-320"], "each beginning where the last ends"),
        (["model.layers.0.mlp.up_proj.weight:0-96", "model.layers.0.mlp.up_proj.weight:96-192"], "only embedding and head"),
        (["model.layers.9.mlp.up_proj.weight:0-96"], "no tensor"),
    ],
)
def test_recipes_with_blocks_that_cannot_be_are_refused(patterns: list[str], match: str, model: LanguageModel) -> None:
    choices = tuple(Choice(pattern, Scheme.parse("int8-channel")) for pattern in patterns)
    with pytest.raises(RecipeError, match=match):
        bitwright.quantize(model, Recipe(choices))


def test_names_of_blocks() -> None:
    assert blocks_of(["a", "b:0-4", "b:4-9", "c:x-2"]) == {"b": [(0, 4), (4, 9)]}
    assert whole_names(["a", "b:0-4", "b:4-9", "c:x-2"]) == ["a", "b", "c:x-2"]
    with pytest.raises(ValueError, match="at most 8"):
        blocks_of([f"b:{i}-{i + 1}" for i in range(9)])


def test_a_plan_chooses_for_blocks_and_foretells_no_other_loss(
    tiny_directory: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the blocks are foretold to lose adds up to what the matrix is, where all rows are looked at."""
    pytest.importorskip("torch", exc_type=ImportError)
    from bitwright.allocation import candidates, sensitivity
    from bitwright.allocation.ways import Way

    monkeypatch.setenv("BITWRIGHT_CACHE", str(tmp_path))
    monkeypatch.setattr(candidates, "SAMPLE_OF_VOCABULARY", 1000)
    monkeypatch.setattr(candidates, "SAMPLE", 1000)
    monkeypatch.setattr(candidates, "SAMPLE_OF_BLOCK", 1000)
    model = bitwright.load(tiny_directory("llama"))
    windows = np.random.default_rng(0).integers(0, VOCABULARY, (4, 16)).astype(np.int32)
    offer = candidates.Offer(tuple(map(Scheme.parse, ("int3-g32", "int8-channel"))), (Way("gptq"),))
    whole = {unit.name: unit for unit in sensitivity.sensitivities(model, windows, offer)}
    monkeypatch.setattr(sensitivity, "LARGE", 100)
    monkeypatch.setattr(sensitivity, "_LAYOUT", 0)
    blocks = sensitivity.sensitivities(model, windows, offer)
    assert blocks == sensitivity.sensitivities(model, windows, offer)  # as read from the cache
    for name in (EMBEDDING, HEAD):
        mine = [unit for unit in blocks if unit.matrix == name]
        assert [unit.rows for unit in mine] == [(0, 64), (64, VOCABULARY)]
        for number, candidate in enumerate(whole[name].candidates):
            assert sum(unit.candidates[number].bits for unit in mine) == candidate.bits
            losses = sum(unit.candidates[number].divergence for unit in mine)
            assert losses == pytest.approx(candidate.divergence, rel=0.05)
