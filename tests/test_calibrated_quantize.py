"""Quantizing with methods that look at a layer's inputs, end to end: what is written, resumed, recorded and refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", exc_type=ImportError)

import bitwright
from bitwright import quantization
from bitwright.calibration import paces
from bitwright.calibration.store import Store
from bitwright.calibration.text import Source
from bitwright.core import Choice, Recipe, Scheme
from bitwright.errors import SchemeError, TextError
from bitwright.fitting import FITTING
from bitwright.fitting.hessian import HessianFit
from bitwright.formats.hadamard import rotate
from bitwright.models import load
from bitwright.models.base import LanguageModel
from bitwright.rounding import ROUNDING
from bitwright.rounding.moments import Moments
from cli.helpers import tensors, write_model

pytestmark = pytest.mark.usefixtures("text_cache")

SOURCE = Source("self", windows=10, length=32)
RECIPE = Recipe.uniform("int4-g32", method="gptq")
OTHERS = [
    RECIPE,
    Recipe.uniform("int4-g32-srow5", method="gptq", fitting="hessian"),
    Recipe.uniform("any3-g32", method="refine", rotate=False),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load(write_model(tmp_path_factory.mktemp("calibrated") / "model", tensors()))


class Stop(BaseException):
    """What Ctrl-C raises, for tests."""


@contextmanager
def silent(_: str) -> Iterator[Callable[[int, int], None]]:
    yield lambda done, total: None


def watch_until(stage: int) -> Callable[[str], object]:
    """A watch that breaks off when the walk has done this many stages."""

    @contextmanager
    def watch(what: str) -> Iterator[Callable[[int, int], None]]:
        def progress(done: int, total: int) -> None:
            assert 0 < done <= total
            if what == "rounding layer by layer" and done == stage:
                raise Stop

        yield progress

    return watch


@pytest.mark.parametrize("method", [name for name, method in ROUNDING.items() if method.needs])
def test_what_is_saved_is_what_was_rounded(method: str, model: LanguageModel, tmp_path: Path) -> None:
    quantized = bitwright.quantize(model, Recipe.uniform("int4-g32", method=method), SOURCE)
    in_memory = {name: quantized.read(name) for name in model.names()}
    saved = quantized.save(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    for name, values in in_memory.items():
        assert np.array_equal(saved.read(name), values), name
    nearest = bitwright.quantize(model, Recipe.uniform("int4-g32"))
    differing = {name for name in model.names() if not np.array_equal(nearest.read(name), in_memory[name])}
    matrices = {name for name in model.names() if len(model.shape(name)) == 2}
    assert differing == matrices - {"model.embed_tokens.weight"}  # which is looked up, and here tied to the head
    assert saved.manifest.source["calibration"] == "self, 10 windows of 32 tokens, seed 0"


def test_layers_get_the_moments_of_quantized_inputs(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second block's inputs depend on how the first was rounded."""
    grams: dict[str, np.ndarray] = {}
    real = quantization.quantize_matrix

    def spy(name: str, tensor: object, choice: object, moments: Moments | None = None) -> object:
        if moments is not None:
            grams.setdefault(name, moments.gram)
        return real(name, tensor, choice, moments)  # type: ignore[arg-type]

    monkeypatch.setattr(quantization, "quantize_matrix", spy)
    seen = {}
    for scheme in ("int8-g32", "int2-g32"):
        grams.clear()
        bitwright.quantize(model, Recipe.uniform(scheme, method="gptq"), SOURCE).calibrate()
        seen[scheme] = dict(grams)
    first, second = "model.layers.0.self_attn.q_proj.weight", "model.layers.1.self_attn.q_proj.weight"
    assert np.allclose(seen["int8-g32"][first], seen["int2-g32"][first], rtol=0.1, atol=0.02)  # embeddings are 8-bit in both
    assert not np.allclose(seen["int8-g32"][second], seen["int2-g32"][second], rtol=0.1, atol=0.02)


@pytest.mark.parametrize("rotate_inputs", [False, True], ids=["as they are", "rotated"])
@pytest.mark.parametrize("method", [name for name, method in ROUNDING.items() if method.needs])
def test_the_outputs_are_nearer_than_with_nearest(
    method: str, rotate_inputs: bool, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """trace((W - Q) H (W - Q)^T) for the inputs as they come and the weights as they are read: the basis is the right one."""
    grams: dict[str, np.ndarray] = {}
    real = quantization.quantize_matrix

    def spy(name: str, tensor: object, choice: object, moments: Moments | None = None) -> object:
        if moments is not None:
            grams.setdefault(name, moments.gram)
        return real(name, tensor, choice, moments)  # type: ignore[arg-type]

    monkeypatch.setattr(quantization, "quantize_matrix", spy)
    quantized = bitwright.quantize(model, Recipe.uniform("int3-g32", method=method, rotate=rotate_inputs), SOURCE)
    nearest = bitwright.quantize(model, Recipe.uniform("int3-g32", rotate=rotate_inputs))
    quantized.calibrate()
    assert len(grams) == 14
    for name, gram in grams.items():
        change = [one.read(name) - model.read(name) for one in (quantized, nearest)]
        error, of_nearest = (np.einsum("ij,ij->", each @ gram, each) for each in change)
        assert error < 0.95 * of_nearest, name


def test_the_fitting_sees_the_inputs_as_they_are_multiplied(model: LanguageModel) -> None:
    name, random = "model.layers.0.mlp.gate_proj.weight", np.random.default_rng(4)
    weights = model.read(name)
    x = random.standard_normal((500, weights.shape[1])) * np.exp(2 * random.standard_normal(weights.shape[1]))
    known, scheme = Moments(x.T @ x / 500), Scheme("int4", 32)
    choice = Choice("*", scheme, "gptq", "hessian", rotate=True)
    found = quantization.quantize_matrix(name, model.stored(name), choice, known)
    turned = rotate(x.astype(np.float32), 64).astype(np.float64)
    fit = HessianFit((turned**2).mean(axis=0).astype(np.float32))
    expected = ROUNDING["gptq"](rotate(weights, 64), scheme, fit, Moments(turned.T @ turned / 500))
    assert np.allclose(rotate(found.dequantize(), 64), expected.dequantize(), atol=1e-5)
    unknown = quantization.quantize_matrix(name, model.stored(name), choice)
    nearest = ROUNDING["nearest"](rotate(weights, 64), scheme, FITTING["mse"])
    assert np.allclose(rotate(unknown.dequantize(), 64), nearest.dequantize(), atol=1e-5)


@pytest.mark.parametrize("recipe", OTHERS, ids=lambda recipe: str(recipe.choices[0].scheme))
def test_an_interrupted_run_goes_on(
    recipe: Recipe, model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bitwright.quantize(model, recipe, SOURCE).save(tmp_path / "whole")
    with pytest.raises(Stop):
        bitwright.quantize(model, recipe, SOURCE).calibrate(tmp_path / "out", watch_until(5))  # type: ignore[arg-type]
    (kept,) = [path for path in tmp_path.iterdir() if path.name.startswith(".out.rounded-")]
    rounded: list[str] = []
    real = quantization.quantize_matrix

    def spy(name: str, tensor: object, choice: object, moments: Moments | None = None) -> object:
        rounded.extend([name] if moments is not None else [])
        return real(name, tensor, choice, moments)  # type: ignore[arg-type]

    monkeypatch.setattr(quantization, "quantize_matrix", spy)
    bitwright.quantize(model, recipe, SOURCE).save(tmp_path / "out")
    assert not any("layers.0" in name for name in rounded) and any("layers.1.mlp" in name for name in rounded)
    assert not kept.exists()
    for file in ("model.safetensors", "manifest.json"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_other_recipes_and_texts_do_not_go_on_with_it(model: LanguageModel, tmp_path: Path) -> None:
    for recipe, source in (
        (RECIPE, SOURCE),
        (Recipe.uniform("int4-g64", method="gptq"), SOURCE),
        (RECIPE, Source("self", windows=10, length=32, seed=1)),
    ):
        with pytest.raises(Stop):
            bitwright.quantize(model, recipe, source).calibrate(tmp_path / "out", watch_until(2))  # type: ignore[arg-type]
    assert len(list(tmp_path.iterdir())) == 3


def test_damaged_leftovers_are_rounded_again(model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        bitwright.quantize(model, RECIPE, SOURCE).calibrate(tmp_path / "out", watch_until(5))  # type: ignore[arg-type]
    for file in next(iter(tmp_path.iterdir())).iterdir():
        file.write_bytes(file.read_bytes()[:100])
    saved = bitwright.quantize(model, RECIPE, SOURCE).save(tmp_path / "out")
    expected = bitwright.quantize(model, RECIPE, SOURCE)
    assert all(np.array_equal(saved.read(name), expected.read(name)) for name in model.names())


def test_a_store_gives_back_what_it_was_given(model: LanguageModel, tmp_path: Path) -> None:
    quantized = bitwright.quantize(model, Recipe.uniform(Scheme("int3", 32, affine=True)))
    for store in (Store(None), Store(tmp_path / "store")):
        for name in model.names():
            assert name not in store
            store.put(name, quantized.stored(name))
            found = store.get(name)
            assert found is not None and type(found) is type(quantized.stored(name))
            assert np.array_equal(found.dequantize(), quantized.read(name))
        store.clear()
        assert model.names()[0] not in store


def test_text_that_calibration_saw_is_not_tested_on(model: LanguageModel, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    words = ["".join(random.choice(list("abcdefgh"), 4)) for _ in range(3000)]
    seen, unseen = " ".join(words[:2500]), " ".join(words[2500:])
    (tmp_path / "seen.txt").write_text(seen, "utf-8")
    saved = bitwright.quantize(model, RECIPE, Source(str(tmp_path / "seen.txt"), 8, 512)).save(tmp_path / "out")
    with pytest.raises(TextError, match="calibration saw .* of this text; evaluate on another text, or pass --allow-seen"):
        bitwright.evaluate(saved, model, seen[100:8000], context=100, tokens=1000)
    assert bitwright.evaluate(saved, model, seen[100:8000], context=100, tokens=1000, allow_seen=True).tokens > 900
    assert bitwright.evaluate(saved, model, unseen, context=100, tokens=1000).tokens > 900


def test_a_forecast_takes_the_work_into_account(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paces, "_seconds", lambda work: 1e-3)  # the same pace for both, however busy this machine is
    small = bitwright.quantize(model, RECIPE, Source("self", windows=100, length=32, seed=9))
    first, second = (
        small.forecast(),
        bitwright.quantize(model, RECIPE, Source("self", windows=10000, length=32, seed=9)).forecast(),
    )
    marks = 8 * (10000 - 100) * 32 // 32  # what the manifest says of so many tokens more
    assert second.size_bytes - first.size_bytes == marks and first.size_bytes < small.size_bytes() + 2000
    assert second.seconds > 5 * first.seconds > 0 and second.writing_seconds > 5 * first.writing_seconds > 0
    assert second.peak_rss_bytes > first.peak_rss_bytes
    nothing = bitwright.quantize(model, Recipe.uniform("int4-g32")).forecast()
    assert nothing.writing_seconds == 0 < nothing.seconds < first.seconds and nothing.size_bytes > 0


@pytest.mark.parametrize("method", ["adaround", "signround"])
def test_tables_of_levels_are_refused_before_any_work(method: str, model: LanguageModel) -> None:
    with pytest.raises(SchemeError, match=r"weight: .*nf4 is a table of levels; choose gptq"):
        bitwright.quantize(model, Recipe.uniform("nf4-g32", method=method))
