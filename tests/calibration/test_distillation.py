"""Distillation: its gradients against those of one graph over the whole model, what it trains, what it leaves, and resuming."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", exc_type=ImportError)

import torch

import bitwright
from bitwright.calibration import distillation
from bitwright.calibration.decoder import Decoder
from bitwright.calibration.distillation import Distillation
from bitwright.calibration.text import Source
from bitwright.core import Choice, Recipe, Scheme
from bitwright.errors import RecipeError
from bitwright.models import load
from bitwright.models.base import Dense, LanguageModel, Packed
from bitwright.quantization import QuantizedModel
from cli.helpers import tensors, write_model

WINDOWS = np.random.default_rng(4).integers(0, 200, (6, 24)).astype(np.int32)
SOURCE = Source("self", windows=10, length=32)
SCHEMES = ["int3-g32", "int3-g32-affine", "kmeans2-g32", "int4-channel-sbf16", "int2-g32-sfp32", "int4-g32-srow5"]


@pytest.fixture(autouse=True)
def small_and_exact(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setattr(distillation, "product_dtype", lambda: torch.float32)
    monkeypatch.setattr(distillation, "STEP_TOKENS", 64)
    monkeypatch.setattr(distillation, "KEPT_EVERY", 2)
    monkeypatch.setenv("BITWRIGHT_CACHE", str(tmp_path_factory.getbasetemp() / "calibration-cache"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load(write_model(tmp_path_factory.mktemp("distillation") / "model", tensors()))


def rounded(model: LanguageModel, scheme: str, rotate: bool = True, distill: int = 0) -> QuantizedModel:
    return bitwright.quantize(model, Recipe.uniform(scheme, rotate=rotate, distill=distill), SOURCE)


def whole_graph(model: LanguageModel, training: Distillation) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The slow twin: loss and leaves of one graph, written down without blocks, chunks or levels."""
    roles, architecture = model.roles(), model.architecture
    leaves = {name: trained.values.clone().requires_grad_(True) for name, trained in training.trained.items()}

    def matrix(name: str, scale: torch.Tensor) -> torch.Tensor:
        packed = training.trained[name].tensor
        assert isinstance(packed, Packed)
        flat = (training.trained[name].levels.float() * scale).view(packed.shape)
        n = packed.rotation
        if not n:
            return flat
        turn = torch.from_numpy(bitwright.formats.hadamard.rotate(np.eye(n, dtype=np.float32), n))
        return (flat.view(packed.shape[0], -1, n) @ turn).view(packed.shape)

    weights: dict[int, dict[str, torch.Tensor]] = {}
    for (role, layer), place in roles.items():
        if place.name in leaves:
            leaf = leaves[place.name]
            weights.setdefault(layer, {})[role] = leaf if leaf.ndim == 1 else matrix(place.name, leaf)
    decoder = Decoder(architecture, WINDOWS.shape[1], torch.float32)

    def log_p(x: torch.Tensor, of: dict[int, dict[str, torch.Tensor]], gain: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
        for layer in range(architecture.layers):
            x = decoder.through(x, of[layer], layer)
        return torch.log_softmax(decoder.normed(x, gain) @ head.T, -1)

    ids = torch.from_numpy(WINDOWS.astype(np.int64))
    read = {key: torch.from_numpy(model.read(place.name)) for key, place in roles.items()}
    plain = {layer: {r: v for (r, of), v in read.items() if of == layer} for layer in range(architecture.layers)}
    scale = architecture.embedding_scale
    with torch.no_grad():
        p = log_p(read["embedding", -1][ids] * scale, plain, read["final_norm", -1], read["head", -1])
    q = log_p(training.embedding[ids] * scale, weights, leaves[roles["final_norm", -1].name], training.head)
    return (p.exp() * (p - q)).sum(-1).mean(), leaves


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_gradients_are_those_of_one_graph(scheme: str, rotate: bool, model: LanguageModel) -> None:
    training = Distillation(model, rounded(model, scheme, rotate), WINDOWS, 1)
    loss, found = training.gradients(torch.arange(len(WINDOWS)))
    expected, leaves = whole_graph(model, training)
    assert loss == pytest.approx(expected.item(), rel=1e-4)
    by_graph = dict(zip(leaves, torch.autograd.grad(expected, list(leaves.values())), strict=True))
    assert set(found) == set(by_graph)
    for name, gradient in found.items():
        largest = float(by_graph[name].abs().max())
        np.testing.assert_allclose(gradient, by_graph[name], rtol=2e-3, atol=1e-3 * largest, err_msg=name)


def test_all_matrices_and_vectors_are_trained_but_embedding_and_head(model: LanguageModel) -> None:
    training = Distillation(model, rounded(model, "int4-g32"), WINDOWS, 1)
    spared = {model.roles()[role, -1].name for role in ("embedding", "head")}
    assert set(training.trained) == set(model.names()) - spared


@pytest.mark.parametrize("scheme", ["int3-g32-affine", "int4-g32-srow5"])
def test_the_loss_falls_and_only_scales_and_vectors_change(scheme: str, model: LanguageModel, tmp_path: Path) -> None:
    before = rounded(model, scheme)
    after = rounded(model, scheme, distill=12)
    assert after.fingerprint() != before.fingerprint()
    saved = after.save(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    windows = after.text.windows
    was, now = (Distillation(model, student, windows, 1).gradients(torch.arange(10))[0] for student in (before, saved))
    assert now < 0.95 * was
    for name in model.names():
        old, new = before.stored(name), saved.stored(name)
        if isinstance(old, Packed):
            assert isinstance(new, Packed)
            assert np.array_equal(old.codes, new.codes)
            assert old.scale.dtype == new.scale.dtype
            assert old.multiple is None or np.array_equal(old.multiple, new.multiple)
            assert np.array_equal(old.scale, new.scale) is ("proj" not in name)
        else:
            assert isinstance(new, Dense)
            assert (old.dtype, old.shape) == (new.dtype, new.shape)
            assert len(old.shape) == 1 or np.array_equal(old.values, new.values)


def test_an_interrupted_run_goes_on_and_ends_alike(model: LanguageModel, tmp_path: Path) -> None:
    class Stop(BaseException):
        """What Ctrl-C raises."""

    seen: list[int] = []

    def watch_until(step: int) -> Callable[[str], object]:
        @contextmanager
        def watch(what: str) -> Iterator[Callable[[int, int], None]]:
            def progress(done: int, total: int) -> None:
                if what == "distilling":
                    assert done <= total == 10
                    seen.append(done)
                    if done == step:
                        raise Stop

            yield progress

        return watch

    recipe = Recipe((Choice("*", Scheme.parse("int3-g32"), "gptq"),), distill=2)
    quantized = bitwright.quantize(model, recipe, SOURCE)
    with pytest.raises(Stop):
        quantized.calibrate(tmp_path / "out", watch_until(5))
    with pytest.raises(Stop):
        quantized.calibrate(tmp_path / "out", watch_until(8))
    assert seen == [1, 2, 3, 4, 5, 5, 6, 7, 8]  # the fourth step was kept
    quantized.calibrate(tmp_path / "out", watch_until(0))
    assert seen[9:] == [9, 10]
    resumed = quantized.save(tmp_path / "out")
    whole = bitwright.quantize(model, recipe, SOURCE).save(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]
    for name in model.names():
        assert np.array_equal(resumed.read(name), whole.read(name)), name


def test_a_damaged_state_is_no_state(model: LanguageModel, tmp_path: Path) -> None:
    (tmp_path / "state.npz").write_bytes(b"PK nothing")
    training = Distillation(model, rounded(model, "int4-g32"), WINDOWS, 1)
    steps: list[int] = []
    assert dict(training.run(tmp_path / "state.npz", lambda done, total: steps.append(done)))
    assert steps == [1, 2, 3]


def test_recipes_keep_it_and_refuse_what_is_no_number(tmp_path: Path) -> None:
    recipe = Recipe.uniform("int4-g64", distill=3)
    recipe.save(tmp_path / "recipe.json")
    assert Recipe.load(tmp_path / "recipe.json") == recipe
    assert "distill" not in Recipe.uniform("int4-g64").to_dict()
    for wrong in ("2", -1, True, 1.5):
        with pytest.raises(RecipeError, match="'distill' is a number of passes"):
            Recipe.from_dict(recipe.to_dict() | {"distill": wrong})


def test_a_forecast_counts_it(model: LanguageModel) -> None:
    assert rounded(model, "int4-g32", distill=1).calibrates
    forecast = rounded(model, "int4-g32", distill=400).forecast()
    assert forecast.seconds > 0
