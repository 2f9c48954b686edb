"""Guidance of any method that looks at inputs: what the walk shows is a plain loop's, and weights of one change nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch", exc_type=ImportError)

import torch

import bitwright
from bitwright.calibration import paces, sequential
from bitwright.calibration.text import Source
from bitwright.core import Choice, Recipe, Scheme
from bitwright.engine import reference
from bitwright.errors import RecipeError
from bitwright.models import load
from bitwright.models.base import LanguageModel, Packed
from bitwright.observers.gram import Gram
from bitwright.quantization import QuantizedModel
from bitwright.rounding import ROUNDING, needs_of
from bitwright.rounding.needs import has_drift, is_guided, with_guidance
from cli.helpers import HIDDEN, tensors, write_model

Floats = npt.NDArray[np.float32]
Read = Callable[[str], Floats]

WINDOWS = np.random.default_rng(8).integers(0, 200, (3, 20)).astype(np.int32)
pytestmark = pytest.mark.usefixtures("text_cache")

SOURCE = Source("self", windows=10, length=32)
CALIBRATING = [name for name, method in ROUNDING.items() if method.needs]
SCHEME = Scheme.parse("int3-g32")
PLACES = [(layer, stage) for layer in (0, 1) for stage in range(4)]
FIRST = {role: f"model.layers.0.self_attn.{role}_proj.weight" for role in "qkv"}
QUERY, KEY, VALUE = (f"model.layers.1.self_attn.{role}_proj.weight" for role in "qkv")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load(write_model(tmp_path_factory.mktemp("guided") / "model", tensors()))


def made(model: LanguageModel, method: str, guidance: bool, fitting: str = "mse", names: str = "*") -> QuantizedModel:
    """With the choice for the tensors that `names` matches, and the others as they are."""
    return bitwright.quantize(model, Recipe((Choice(names, SCHEME, method, fitting, rotate=True, guidance=guidance),)), SOURCE)


def alike(one: QuantizedModel, other: QuantizedModel) -> bool:
    return all(np.array_equal(one.read(name), other.read(name)) for name in one.names())


@pytest.mark.parametrize("method", ROUNDING)
def test_guidance_weighs_what_a_method_needs_and_asks_for_nothing_else(method: str) -> None:
    plain, guided = needs_of(method), needs_of(method, guidance=True)
    assert is_guided(guided) == bool(plain) == bool(guided)
    assert has_drift(guided) == has_drift(plain) and with_guidance(guided) == guided


class Shifting:
    """Adds the same to all weights of the first block, and keeps what it is shown."""

    def __init__(self, model: LanguageModel, needs: dict[str, str]) -> None:
        self.model, self.of, self.seen = model, needs, dict[str, Gram | None]()

    def needs(self, name: str) -> str:
        return self.of.get(name, "")

    def rounded(self, name: str, moments: Gram | None) -> Floats:
        self.seen[name] = moments
        return self.read(name)

    def read(self, name: str) -> Floats:
        return self.model.read(name) + np.float32(0.02 * ("layers.0." in name and "norm" not in name))


def inputs_of_queries(model: LanguageModel, read: Read, monkeypatch: pytest.MonkeyPatch) -> Floats:
    """(windows, tokens, columns) in the second block, by the slow twin."""
    found: list[Floats] = []
    linear = reference._linear

    class Given:
        architecture, roles = model.architecture, staticmethod(model.roles)

        def read(self, name: str) -> Floats:
            return read(name)

    def spy(x: Floats, weight: reference.Weight, role: str, layer: int) -> Floats:
        found.extend([x] if (role, layer) == ("q", 1) else [])
        return linear(x, weight, role, layer)

    with monkeypatch.context() as patch:
        patch.setattr(reference, "_linear", spy)
        for window in WINDOWS:
            reference.forward_hidden(Given(), window)  # type: ignore[arg-type]
    return np.stack(found)


def test_weighed_moments_are_a_plain_loops(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """H = sum of s x~ x~^T / sum of s, D = sum of s (x - x~) x~^T / sum of s; for who does not ask for weights, s is 1."""
    monkeypatch.setattr(sequential, "product_dtype", lambda: torch.float32)
    weights = np.random.default_rng(2).exponential(1, WINDOWS.shape).astype(np.float32)
    monkeypatch.setattr(sequential, "token_weights", lambda *_: dict.fromkeys(PLACES, weights))
    shifting = Shifting(model, {QUERY: "guided cross", KEY: "cross", VALUE: "guided"})
    sequential.walk(model, WINDOWS, shifting)
    now, before = (inputs_of_queries(model, read, monkeypatch).astype(float) for read in (shifting.read, model.read))
    for name in (QUERY, KEY, VALUE):
        gram, cross, total = np.zeros((HIDDEN, HIDDEN)), np.zeros((HIDDEN, HIDDEN)), 0.0
        for place in np.ndindex(WINDOWS.shape):
            s = 1.0 if name == KEY else float(weights[place])
            gram += s * np.outer(now[place], now[place])
            cross += s * np.outer(before[place] - now[place], now[place])
            total += s
        found = shifting.seen[name]
        assert found is not None and found.cross is not None and found.count == pytest.approx(total, rel=1e-6)
        np.testing.assert_allclose(found.gram, gram / total, atol=1e-4 * gram.max() / total)
        np.testing.assert_allclose(found.cross, cross / total, atol=1e-3 * np.abs(cross).max() / total)


@pytest.mark.parametrize("method", CALIBRATING)
def test_weights_of_one_give_what_is_had_without(method: str, model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of inputs of the first block and the second; the model's own weights give something else."""
    names = "*.[qo]_proj.weight"
    plain = made(model, "refine" if method == "guided" else method, False, names=names)
    assert not alike(made(model, method, True, names=names), plain)
    monkeypatch.setattr(sequential, "token_weights", lambda *_: dict.fromkeys(PLACES, np.ones((10, 32), np.float32)))
    assert alike(made(model, method, True, names=names), plain)


def test_guidance_reaches_the_fitting(model: LanguageModel) -> None:
    """Scales of GPTQ depend on inputs by the fitting alone."""
    for fitting in ("mse", "hessian"):
        plain, guided = (made(model, "gptq", way, fitting, FIRST["q"]).stored(FIRST["q"]) for way in (False, True))
        assert isinstance(plain, Packed) and isinstance(guided, Packed)
        assert np.array_equal(plain.scale, guided.scale) == (fitting == "mse")


@pytest.mark.parametrize("fitting", ["mse", "hessian"])
def test_guided_is_refine_with_guidance(fitting: str, model: LanguageModel, tmp_path: Path) -> None:
    """To the last bit, whether it is said twice or not."""
    ways = {"guided": False, "refine": True}
    for method, guidance in ways.items():
        made(model, method, guidance, fitting).save(tmp_path / method)
    made(model, "guided", True, fitting).save(tmp_path / "twice")
    files = [(tmp_path / place / "model.safetensors").read_bytes() for place in (*ways, "twice")]
    assert files[0] == files[1] == files[2]


def test_an_artifact_says_that_it_was_guided(model: LanguageModel, tmp_path: Path) -> None:
    for guidance in (True, False):
        quantized = made(model, "gptq", guidance)
        recipe = quantized.save(tmp_path / f"{guidance}").manifest.recipe
        assert recipe is not None and Recipe.from_dict(recipe) == quantized.recipe
        assert [choice.get("guidance") for choice in recipe["choices"]] == [guidance or None]
    assert made(model, "gptq", True).fingerprint() != made(model, "gptq", False).fingerprint()


@pytest.mark.parametrize("method", ["gptq", "gptaq", "guided"])
def test_the_backward_pass_is_foretold(method: str, model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paces, "_seconds", lambda work: 1e-3)  # however busy this machine is
    monkeypatch.setattr(paces, "ROUNDS", 1)
    plain, guided = (made(model, "refine" if method == "guided" else method, way).forecast() for way in (False, True))
    same = made(model, method, True).forecast()
    head = SOURCE.windows * SOURCE.length * paces.guiding_head(model)
    assert guided.seconds > plain.seconds + head and guided.peak_rss_bytes > plain.peak_rss_bytes
    assert (same.seconds, same.peak_rss_bytes) == (guided.seconds, guided.peak_rss_bytes)


def test_a_method_that_sees_no_inputs_is_refused(model: LanguageModel) -> None:
    for method in (name for name in ROUNDING if name not in CALIBRATING):
        with pytest.raises(RecipeError, match=f"guidance needs a method that calibrates, unlike '{method}'; choose from gptq, "):
            made(model, method, guidance=True)


def test_some_tensors_may_be_guided(model: LanguageModel) -> None:
    """In one stage: k's are weighed, q's and v's not."""
    choices = Choice(FIRST["k"], SCHEME, "gptq", rotate=True, guidance=True), Choice("*", SCHEME, "gptq", rotate=True)
    found = bitwright.quantize(model, Recipe(choices), SOURCE)
    plain, guided = (made(model, "gptq", way) for way in (False, True))
    for role, name in FIRST.items():
        same, other = (guided, plain) if role == "k" else (plain, guided)
        assert np.array_equal(found.read(name), same.read(name)) and not np.array_equal(found.read(name), other.read(name))
