"""The pipeline: what a recipe says is what each tensor becomes, refused early where it cannot be, in bounded memory."""

from __future__ import annotations

import math
import subprocess
import sys
import tomllib
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitwright
from bitwright.artifact import ArtifactModel, SafetensorsWriter
from bitwright.artifact.safetensors_file import SafetensorsFile
from bitwright.core import Choice, Recipe, Scheme
from bitwright.errors import MissingTensorError, NonFiniteError, RecipeError, SchemeError, TextError, TokenizerError
from bitwright.fitting import FITTING
from bitwright.formats import FORMATS
from bitwright.formats.hadamard import rotate
from bitwright.inspection import summary
from bitwright.models.base import Dense, LanguageModel, Packed
from bitwright.quantization import matrix
from bitwright.quantization.matrix import packed_from, quantize_matrix
from bitwright.rounding import ROUNDING
from handmade import HIDDEN, make_handmade, weights

Q, DOWN, HEAD, EMBEDDING = (
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.1.mlp.down_proj.weight",
    "lm_head.weight",
    "model.embed_tokens.weight",
)
SPELLINGS = [
    f"{format.name}{granularity}{affine}"
    for format in FORMATS.values()
    for granularity in (("-tensor", "-channel", "-g32") if format.scaled else ("",))
    for affine in (("", "-affine") if format.affine else ("",))
    if not (format.learned and granularity != "-g32")
] + ["int2-g32-srow5", "int3-g32-srow5", "int4-g32-srow5", "mxfp4", "nvfp4", "any4-channel", "kmeans2-tensor"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return bitwright.load(make_handmade(tmp_path_factory.mktemp("models") / "untied"))


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return bitwright.load(make_handmade(tmp_path_factory.mktemp("models") / "tied", "BF16", tied=True))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_tensor_becomes_what_fitting_and_rounding_make_of_it(model: LanguageModel, spelling: str) -> None:
    """Also when it is worked on in blocks of two rows."""
    scheme, fitting = Scheme.parse(spelling), "minmax"
    expected = ROUNDING["nearest"](model.read(Q), scheme, FITTING[fitting])
    quantized = bitwright.quantize(model, Recipe.uniform(scheme, fitting=fitting, rotate=False))
    for block_bytes in (matrix.BLOCK_BYTES, 2 * HIDDEN * 4):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(matrix, "BLOCK_BYTES", block_bytes)
            stored = quantized.stored(Q)
        np.testing.assert_array_equal(stored.dequantize(), expected.dequantize())
        assert stored.shape == model.shape(Q)
        assert quantized.scheme_of(Q) == str(scheme)
        assert quantized.stored_bits(Q) == scheme.stored_bits(stored.shape) == 8 * stored_bytes(stored)


def stored_bytes(stored: Packed | Dense) -> int:
    if isinstance(stored, Dense):
        return stored.values.nbytes
    parts = (stored.codes, stored.scale, stored.zero_point, stored.multiple, stored.table)
    return sum(part.nbytes for part in parts if part is not None)


@pytest.mark.parametrize("spelling", ["int3-g32-affine", "int8-tensor", "fixed4-channel", "int4-g64-sbf16", "int2-g16-sfp32"])
@pytest.mark.parametrize("rotation", [0, 64])
def test_packing_loses_nothing(model: LanguageModel, spelling: str, rotation: int) -> None:
    quantized = ROUNDING["nearest"](rotate(model.read(DOWN), rotation), Scheme.parse(spelling), FITTING["mse"])
    quantized = replace(quantized, rotation=rotation)
    back = packed_from(quantized).qtensor()
    np.testing.assert_array_equal(back.codes, quantized.codes)
    np.testing.assert_array_equal(back.dequantize(), quantized.dequantize())


def test_a_rotated_tensor_is_quantized_in_the_turned_columns(model: LanguageModel, tmp_path: Path) -> None:
    scheme = Scheme.parse("int4-g32-srow5")
    quantized = bitwright.quantize(model, Recipe.uniform(scheme, fitting="minmax"))
    saved = quantized.save(tmp_path / "out")
    for name in (Q, DOWN):  # 64 and 192 columns: blocks of 64
        expected = ROUNDING["nearest"](rotate(model.read(name), 64), scheme, FITTING["minmax"])
        for stored in (quantized.stored(name), saved.stored(name)):
            assert isinstance(stored, Packed) and stored.rotation == 64
            np.testing.assert_array_equal(stored.qtensor().codes, expected.codes)
            np.testing.assert_array_equal(stored.dequantize(), rotate(expected.dequantize(), 64))
        error = np.abs(quantized.read(name) - model.read(name)).max()
        assert 0 < error < 0.5 * np.abs(model.read(name)).max()


def rotations(model: LanguageModel, recipe: Recipe) -> dict[str, int]:
    quantized = bitwright.quantize(model, recipe)
    stored = {name: quantized.stored(name) for name in quantized.names()}
    return {name: tensor.rotation if isinstance(tensor, Packed) else 0 for name, tensor in stored.items()}


def test_what_is_only_looked_up_is_not_rotated(model: LanguageModel, tied: LanguageModel) -> None:
    untied = rotations(model, Recipe.uniform("int4-g64"))
    assert [untied[name] for name in (Q, DOWN, HEAD, EMBEDDING)] == [64, 64, 64, 0]
    assert rotations(tied, Recipe.uniform("int4-g64"))[EMBEDDING] == 64


def test_full_precision_is_not_rotated(model: LanguageModel) -> None:
    assert not any(rotations(model, Recipe.uniform("fp16")).values())
    mixed = rotations(model, Recipe.uniform("int4-g64", head="fp16"))
    assert (mixed[HEAD], mixed[Q]) == (0, 64)
    assert not any(rotations(model, Recipe.uniform("int4-g64", rotate=False)).values())


def test_vectors_keep_their_precision_and_the_head_gets_its_own(model: LanguageModel) -> None:
    quantized = bitwright.quantize(model, Recipe.uniform("int4-g64"))
    for name in quantized.names():
        expected = "fp16" if len(model.shape(name)) == 1 else "int8-channel" if name == HEAD else "int4-g64"
        assert quantized.scheme_of(name) == expected
    np.testing.assert_array_equal(quantized.read("model.norm.weight"), model.read("model.norm.weight"))


def test_a_tied_head_is_the_embedding(tied: LanguageModel) -> None:
    quantized = bitwright.quantize(tied, Recipe.uniform("int3-g32", head="int6-g64"))
    assert quantized.scheme_of(EMBEDDING) == "int6-g64"
    assert quantized.scheme_of("model.norm.weight") == "bf16"
    assert HEAD not in quantized.names()


def test_what_no_choice_matches_stays_as_it_is(model: LanguageModel) -> None:
    quantized = bitwright.quantize(model, Recipe((Choice("*.mlp.*", Scheme.parse("int4-g64")),)))
    assert [quantized.scheme_of(name) for name in (Q, DOWN, HEAD, EMBEDDING)] == ["fp16", "int4-g64", "fp16", "fp16"]
    np.testing.assert_array_equal(quantized.read(Q), model.read(Q))


def test_a_quantized_model_is_quantized_again(model: LanguageModel, tmp_path: Path) -> None:
    first = bitwright.quantize(model, Recipe.uniform("int8-g32-affine")).save(tmp_path / "first")
    again = bitwright.quantize(first, Recipe.uniform("int4-g32", fitting="minmax", rotate=False))
    expected = ROUNDING["nearest"](first.read(Q), Scheme.parse("int4-g32"), FITTING["minmax"]).dequantize()
    np.testing.assert_array_equal(again.read(Q), expected)
    kept = bitwright.quantize(first, Recipe((Choice(DOWN, Scheme.parse("int4-g32")),))).save(tmp_path / "kept")
    assert (kept.scheme_of(Q), kept.scheme_of(DOWN)) == ("int8-g32-affine", "int4-g32")
    np.testing.assert_array_equal(kept.read(Q), first.read(Q))


def test_converting_once_more_changes_nothing(model: LanguageModel) -> None:
    for spelling in ("bf16", "fp32", "fp16"):
        tensor = quantize_matrix(Q, model.stored(Q), Choice("*", Scheme.parse(spelling)))
        again = quantize_matrix(Q, tensor, Choice("*", Scheme.parse(spelling)))
        np.testing.assert_array_equal(tensor.dequantize(), again.dequantize())


REFUSED: dict[str, tuple[Recipe, type[Exception], str]] = {
    "method": (Recipe.uniform("int4-g64", method="magic"), RecipeError, "unknown method 'magic'; choose from nearest"),
    "fitting": (Recipe.uniform("int4-g64", fitting="magic"), RecipeError, "unknown fitting 'magic'; choose from minmax"),
    "group": (Recipe.uniform("int4-g48"), SchemeError, r"model\.[a-z_.0-9]+weight: group 48 does not divide a row of 64"),
    "head": (Recipe.uniform("int4-g64", head="int8-g100"), SchemeError, "lm_head.weight: group 100"),
    "name": (Recipe((Choice("model.layers.9.x", Scheme.parse("int4-g64")),)), RecipeError, "no tensor 'model.layers.9.x'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_any_work(model: LanguageModel, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, error, message = REFUSED[case]
    monkeypatch.setattr(type(model), "stored", lambda self, name: pytest.fail("a weight was read"))
    with pytest.raises(error, match=message):
        bitwright.quantize(model, recipe)


def test_calibration_text_must_exist(model: LanguageModel) -> None:
    with pytest.raises(TextError, match="no calibration text nowhere.txt"):
        bitwright.quantize(model, Recipe.uniform("int4-g64"), calibration="nowhere.txt")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", [Q, EMBEDDING, "model.norm.weight"])
def test_weights_that_are_no_numbers_are_named(tmp_path: Path, name: str, value: float) -> None:
    changed = weights()[name].copy()
    changed.reshape(-1)[3] = value
    quantized = bitwright.quantize(
        bitwright.load(make_handmade(tmp_path, "F32", changed={name: changed})), Recipe.uniform("int4-g64")
    )
    with pytest.raises(NonFiniteError, match=f"{name} holds 1 NaN or infinite"):
        quantized.stored(name)


def test_numbers_beyond_a_type_are_named(tmp_path: Path) -> None:
    huge = weights()[Q] * np.float32(1e30)
    model = bitwright.load(make_handmade(tmp_path, "F32", changed={Q: huge}))
    with pytest.raises(NonFiniteError, match=f"{Q}: a value is beyond fp16"):
        bitwright.quantize(model, Recipe.uniform("fp16")).stored(Q)
    with pytest.raises(SchemeError, match=f"{Q}: a scale is beyond fp16"):
        bitwright.quantize(model, Recipe.uniform("int4-g64")).stored(Q)
    bitwright.quantize(model, Recipe.uniform("int4-g64-sbf16")).stored(Q)


def test_a_name_that_is_not_there(model: LanguageModel) -> None:
    with pytest.raises(MissingTensorError, match="'other'"):
        bitwright.quantize(model, Recipe.uniform("int4-g64")).stored("other")


def test_a_model_without_a_tokenizer_and_one_with_a_broken_one(tmp_path: Path) -> None:
    source = make_handmade(tmp_path / "source", tokenizer=False)
    recipe = Recipe.uniform("int4-g64")
    saved = bitwright.quantize(bitwright.load(source), recipe).save(tmp_path / "out")
    with pytest.raises(TokenizerError):
        saved.tokenizer()
    (source / "tokenizer.json").write_text("{")
    with pytest.raises(TokenizerError):
        bitwright.quantize(bitwright.load(source), recipe).save(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_artifact_remembers_where_it_comes_from(model: LanguageModel, tmp_path: Path) -> None:
    recipe = Recipe.uniform("int4-g64")
    saved = bitwright.quantize(model, recipe).save(tmp_path / "out")
    assert saved.manifest.source == {"name": "untied", "fingerprint": model.fingerprint()}
    assert saved.manifest.recipe is not None and Recipe.from_dict(saved.manifest.recipe) == recipe
    assert saved.manifest.bitwright == bitwright.__version__


def test_fingerprints_tell_recipes_apart(model: LanguageModel) -> None:
    recipes = [Recipe.uniform("int4-g64"), Recipe.uniform("int4-g32"), Recipe.uniform("int4-g64", fitting="minmax")]
    assert len({bitwright.quantize(model, recipe).fingerprint() for recipe in recipes}) == 3
    assert len({bitwright.quantize(model, recipes[0]).fingerprint() for _ in range(2)}) == 1


def test_summary_counts_every_bit_once(model: LanguageModel, tied: LanguageModel, tmp_path: Path) -> None:
    for source in (model, tied):
        quantized = bitwright.quantize(source, Recipe.uniform("int3-g32-affine"))
        saved = quantized.save(tmp_path / "out")
        lazy, stored = summary(quantized), summary(saved)
        file = SafetensorsFile(saved.path / "model.safetensors")
        bits = 8 * sum(file.nbytes(part) for part in file.names())
        count = sum(math.prod(source.shape(name)) for name in source.names())
        assert lazy["bits_per_weight"] == stored["bits_per_weight"] == bits / count
        assert lazy["tensors"] == stored["tensors"]
        assert [row["name"] for row in stored["tensors"]] == list(source.names())
        assert lazy["size_bytes"] == bits // 8 == sum(row["bytes"] for row in lazy["tensors"])
        assert stored["size_bytes"] == sum(path.stat().st_size for path in saved.path.iterdir()) > lazy["size_bytes"]
    row = next(row for row in summary(model)["tensors"] if row["name"] == Q)
    assert row == {
        "name": Q,
        "shape": [64, 64],
        "scheme": "fp16",
        "rotation": 0,
        "weights": 4096,
        "bits_per_weight": 16.0,
        "bytes": 8192,
    }


class Generated:
    """A tensor's file of random fp16, mapped: nothing of it lies in memory that Python counts."""

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        with SafetensorsWriter(path, {"x": ("F16", shape)}) as writer:
            writer.write("x", np.random.default_rng(0).standard_normal(shape, np.float32).astype(np.float16))
        self.tensor = Dense("fp16", SafetensorsFile(path).view("x"))


def peak_of(work: Any) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_one_huge_matrix_takes_blocks_and_its_packed_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "BLOCK_BYTES", 2**20)
    tensor = Generated(tmp_path / "x", (16384, 1024)).tensor  # 64 MiB as float32, 8 MiB packed
    peak = peak_of(lambda: quantize_matrix("x", tensor, Choice("*", Scheme.parse("int4-g64"), fitting="minmax")))
    assert peak < 2 * 8.25 * 2**20 + matrix.THREADS * 8 * 2**20


def test_saving_takes_memory_for_the_largest_tensor_alone(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is alive between two tensors does not grow with the tensors that went before."""
    monkeypatch.setattr(matrix, "BLOCK_BYTES", 2**16)
    quantized = bitwright.quantize(model, Recipe.uniform("int8-channel", fitting="minmax"))
    live: list[int] = []
    tracemalloc.start()
    try:
        quantized.save(tmp_path / "out", lambda name, done, total: live.append(tracemalloc.get_traced_memory()[0]))
    finally:
        tracemalloc.stop()
    largest = max(4 * math.prod(model.shape(name)) for name in model.names())
    assert max(live) - live[0] < largest


def test_the_artifact_is_a_language_model_like_any_other(model: LanguageModel, tmp_path: Path) -> None:
    saved = bitwright.quantize(model, Recipe.uniform("fp32")).save(tmp_path / "out")
    assert isinstance(bitwright.load(tmp_path / "out"), ArtifactModel)
    assert (saved.architecture, saved.roles(), saved.config()) == (model.architecture, model.roles(), model.config())
    for name in model.names():
        np.testing.assert_array_equal(saved.read(name), model.read(name))


def test_the_public_names_load_when_used() -> None:
    code = (
        "import bitwright, bitwright.quantization\n"
        "assert callable(bitwright.quantize) and callable(bitwright.load), 'a module hides a function'\n"
        "assert bitwright.Scheme.parse('int4-g64').group == 64\n"
        "assert dir(bitwright) == sorted(bitwright.__all__)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'quantise'; it has .*quantize"):
        _ = bitwright.quantise  # type: ignore[attr-defined]


def test_the_version_is_the_package_s() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["version"] == bitwright.__version__


def test_what_is_held_is_quantized_once(model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantized = bitwright.quantize(model, Recipe.uniform("int4-g32"))
    before = {name: quantized.read(name) for name in (Q, EMBEDDING)}
    quantized.hold()
    monkeypatch.setattr("bitwright.quantization.quantize_matrix", lambda *_: pytest.fail("quantized again"))
    assert all(np.array_equal(quantized.read(name), values) for name, values in before.items())
    assert np.array_equal(quantized.save(tmp_path / "out").read(Q), before[Q])
    with pytest.raises(BaseException, match="quantized again"):  # nothing is held any more
        quantized.read(Q)
