"""Mixtures of experts, quantized: each expert by its own tokens, the router not at all, and those that none reach told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch", exc_type=ImportError)

import tiny
from bitwright import load, quantize
from bitwright.calibration import expert_walk, forward, routing, sequential
from bitwright.calibration.decoder import Decoder
from bitwright.calibration.text import Source
from bitwright.core import Choice, Recipe, Scheme
from bitwright.engine import reference
from bitwright.errors import FindingError, RecipeError
from bitwright.models.architecture import active_share, expert_of, experts_of, kind_of, layer_matrices, of_expert
from bitwright.models.base import Dense, Packed
from bitwright.models.huggingface import HuggingFaceModel

CASES = ["mixtral", "qwen3-moe", "qwen3-moe-unnormalized"]
GATE = "model.layers.{}.mlp.experts.{}.gate_proj.weight"


def text_file(directory: Path) -> str:
    path = directory / "text.txt"
    path.write_text("The quick brown fox jumps over the lazy dog, 12345 times. " * 60, "utf-8")
    return str(path)


def test_roles_name_experts() -> None:
    assert of_expert("gate", 7) == "gate.7" and of_expert("gate", None) == "gate"
    assert (kind_of("gate.7"), expert_of("gate.7")) == ("gate", 7) and (kind_of("q"), expert_of("q")) == ("q", None)


def test_a_layer_has_the_matrices_of_all_its_experts(tiny_directory: Callable[[str], Path]) -> None:
    dense, mixture = (load(tiny_directory(case)).architecture for case in ("qwen3", "qwen3-moe"))
    assert layer_matrices(dense) == ("q", "k", "v", "o", "gate", "up", "down") and experts_of(dense) == (None,)
    assert layer_matrices(mixture)[4:] == tuple(f"{role}.{expert}" for expert in range(6) for role in ("gate", "up", "down"))
    assert active_share(mixture, "up.5") == 3 / 6 and active_share(mixture, "q") == active_share(dense, "up") == 1


@pytest.mark.parametrize("case", CASES)
def test_the_decoder_routes_as_the_slow_twin(case: str, tiny_directory: Callable[[str], Path]) -> None:
    import torch

    model = HuggingFaceModel(tiny_directory(case))
    random = torch.Generator().manual_seed(1)
    h, router = torch.randn(40, 64, generator=random), torch.randn(model.architecture.experts, 64, generator=random)
    expected = reference.routed(model.architecture, (h @ router.T).numpy())
    found = np.zeros_like(expected)
    for expert, (tokens, shares) in enumerate(routing.routes(h, router, model.architecture)):
        assert tokens.tolist() == sorted(tokens.tolist())
        found[tokens.numpy(), expert] = shares.numpy()
    assert np.allclose(found, expected, atol=1e-6)
    assert ((found > 0).sum(axis=1) == model.architecture.experts_per_token).all()


@pytest.mark.parametrize("case", CASES)
def test_both_forward_passes_are_the_slow_twins(case: str, tiny_directory: Callable[[str], Path]) -> None:
    import torch

    model, ids = load(tiny_directory(case)), np.array([tiny.tokens(24), tiny.tokens(48)[24:]], np.int32)
    expected = np.stack([reference.forward_hidden(model, window) for window in ids])
    found, sites = [], []

    def change(site: forward.Site, x: torch.Tensor) -> torch.Tensor:
        if site.layer < 0:
            found.append(x.numpy())
        return x

    sites += [site for site in forward.forward(model, ids, change, torch.float32)]
    assert np.abs(np.concatenate(found) - expected).max() < 1e-4
    assert forward.Site(1, ("gate.2", "up.2")) in sites and forward.Site(0, ("down.1",)) in sites

    decoder, roles = Decoder(model.architecture, ids.shape[1], torch.float32), model.roles()
    x = torch.from_numpy(model.read(roles["embedding", -1].name)[ids])
    for layer in range(model.architecture.layers):
        weights = {role: torch.from_numpy(np.array(model.read(place.name))) for (role, of), place in roles.items() if of == layer}
        x = decoder.through(x, weights, layer)
    last = decoder.normed(x, torch.from_numpy(np.array(model.read(roles["final_norm", -1].name))))
    assert np.abs(last.numpy() - expected).max() < 1e-4


@pytest.mark.parametrize("method", ["nearest", "gptq", "gptaq"])
def test_a_mixture_is_saved_and_read_back(method: str, tiny_directory: Callable[[str], Path], tmp_path: Path) -> None:
    model = load(tiny_directory("qwen3-moe"))
    quantized = quantize(model, Recipe.uniform("int4-g32", method), Source(text_file(tmp_path), 4, 64))
    artifact = quantized.save(tmp_path / "out")
    assert artifact.architecture == model.architecture and quantized.findings == ()
    for (role, layer), place in model.roles().items():
        stored = artifact.stored(place.name)
        if role == "router":
            assert isinstance(stored, Dense) and np.array_equal(stored.dequantize(), model.read(place.name))
        elif layer >= 0 and len(stored.shape) == 2:
            assert isinstance(stored, Packed) and str(stored.scheme) == "int4-g32", role
    logits, expected = (reference.forward(form, tiny.tokens(40)) for form in (artifact, model))
    assert 0 < np.abs(logits - expected).mean() < 0.5 * np.abs(expected).mean()


def test_gptq_is_that_of_the_tokens_routed_to_an_expert(
    tiny_directory: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One matrix alone is rounded, so its inputs are those of the slow twin; what comes out is that of their moments."""
    import torch

    from bitwright.observers.gram import Gram
    from bitwright.quantization.matrix import quantize_matrix
    from bitwright.rounding.moments import Moments

    monkeypatch.setattr(sequential, "product_dtype", lambda: torch.float32)
    model, name = load(tiny_directory("qwen3-moe")), GATE.format(1, 2).replace("gate", "down")
    choice = Choice(name, Scheme.parse("int3-g32"), "gptq")
    quantized = quantize(model, Recipe((choice,)), Source(text_file(tmp_path), 4, 64))
    windows = quantized.text.windows
    seen: list[npt.NDArray[np.float32]] = []
    linear = reference._linear

    def spy(x: npt.NDArray[np.float32], weight: reference.Weight, role: str, layer: int) -> npt.NDArray[np.float32]:
        if (role, layer) == ("down.2", 1):
            seen.append(x)
        return linear(x, weight, role, layer)

    monkeypatch.setattr(reference, "_linear", spy)
    for window in windows:
        reference.forward_hidden(model, window)
    gram = Gram(64)
    gram.update(np.concatenate(seen))
    assert 0.2 < gram.count / windows.size < 0.8  # some are routed elsewhere
    expected = quantize_matrix(name, model.stored(name), choice, Moments(gram.gram, None))
    found = quantized.stored(name)
    assert isinstance(found, Packed) and isinstance(expected, Packed)
    assert np.mean(found.codes == expected.codes) > 0.99  # sums in another order may turn a tie
    nearest = quantize_matrix(name, model.stored(name), Choice(name, choice.scheme))
    assert isinstance(nearest, Packed) and np.mean(found.codes == nearest.codes) < 0.9


@pytest.mark.parametrize("interrupted", [False, True])
def test_an_expert_that_no_token_reaches_is_told(
    interrupted: bool, tiny_directory: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expert_walk, "FEWEST_TOKENS", 120)  # of 256, each to 3 of 6 experts
    model = load(tiny_directory("qwen3-moe"))
    quantized = quantize(model, Recipe.uniform("int4-g32", "gptq"), Source(text_file(tmp_path), 4, 64))
    if interrupted:  # what was rounded is found, and what was seen on the way is seen again
        quantized.calibrate(tmp_path / "out")
        quantized = quantize(model, Recipe.uniform("int4-g32", "gptq"), Source(text_file(tmp_path), 4, 64))
    quantized.calibrate(tmp_path / "out")
    reached = dict(quantized._reached)
    assert sum(reached.values()) == 2 * 3 * 256
    dead = {GATE.format(*place): tokens for place, tokens in reached.items() if tokens < 120}
    assert 0 < len(dead) < len(reached)
    with pytest.raises(FindingError):
        quantized.save(tmp_path / "out", strict=True)
    assert not (tmp_path / "out").exists()
    quantized.save(tmp_path / "out")
    told = {one.tensor: one.message for one in quantized.findings if one.kind == "dead expert"}
    assert told.keys() == dead.keys()
    for name, tokens in dead.items():
        assert told[name].startswith(f"{tokens} calibration token(s) came to this expert")
        nearest = quantize(model, Recipe.uniform("int4-g32")).stored(name)
        assert isinstance(nearest, Packed) and np.array_equal(load(tmp_path / "out").stored(name).codes, nearest.codes)  # type: ignore[union-attr]


def test_the_walk_and_what_observes_pass_over_experts_without_tokens(tiny_directory: Callable[[str], Path]) -> None:
    """Two tokens go to six of twelve experts at most; the others' matrices are made all the same."""
    model, ids = load(tiny_directory("qwen3-moe")), np.array([tiny.tokens(2)], np.int32)
    given: list[str] = []

    class Unchanged:
        def needs(self, name: str) -> str:
            return "gram"

        def rounded(self, name: str, moments: object) -> npt.NDArray[np.float32]:
            given.append(name)
            assert (moments is None) == (".experts." in name or "embed" in name), name  # fewer than are told of
            return model.read(name)

    reached = sequential.walk(model, ids, Unchanged())
    assert sum(reached.values()) == 2 * 2 * 3 and 0 in reached.values()
    roles = model.roles()
    assert sorted(given) == sorted({place.name for (role, _), place in roles.items() if "norm" not in role and role != "router"})
    seen = {(inputs.layer, inputs.roles) for inputs in forward.observe(model, ids)}
    came = {place for place, tokens in reached.items() if tokens}
    assert {place for place in reached if (place[0], (of_expert("down", place[1]),)) in seen} == came


def test_static_ranges_of_an_expert_that_calibration_did_not_reach_are_refused(tiny_directory: Callable[[str], Path]) -> None:
    from bitwright.activations.kind import Kind
    from bitwright.activations.simulation import hidden_states
    from bitwright.errors import SchemeError

    model, kind = load(tiny_directory("qwen3-moe")), Kind.parse("int8-tensor")
    text = [np.array(tiny.tokens(40), np.int32)]
    calibration = np.stack(text)
    assert next(hidden_states(model, text, kind, calibration)).shape == (40, 64)
    with pytest.raises(SchemeError, match="no calibration token came to this expert, so its inputs have no scale"):
        list(hidden_states(model, text, kind, calibration[:, :2]))


def test_distillation_trains_experts(tiny_directory: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A small step against the gradient lowers the loss by what the gradient says; the router is not trained."""
    import torch

    from bitwright.calibration import distillation
    from bitwright.calibration.distillation import Distillation

    monkeypatch.setattr(distillation, "product_dtype", lambda: torch.float32)
    model = load(tiny_directory("qwen3-moe"))
    ids = np.array([tiny.tokens(4), tiny.tokens(8)[4:]], np.int32)
    training = Distillation(model, quantize(model, Recipe.uniform("int3-g32")), ids, passes=1)
    loss, gradients = training.gradients(torch.tensor([0, 1]))
    of_experts = {name: float(gradient.abs().max()) for name, gradient in gradients.items() if ".experts." in name}
    assert len(of_experts) == 2 * 6 * 3 and max(of_experts.values()) > 0
    assert not any("mlp.gate.weight" in name for name in gradients)
    length = sum(float(gradient.square().sum()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        training.trained[name].values -= 1e-3 * loss / length * gradient
    lower, _ = training.gradients(torch.tensor([0, 1]))
    assert loss - lower == pytest.approx(1e-3 * loss, rel=0.1)


def test_plans_and_analyses_are_refused_in_one_line(tiny_directory: Callable[[str], Path]) -> None:
    from bitwright.allocation.budget import Budget
    from bitwright.analysis.analyze import Examined, analyze
    from bitwright.analysis.documents import Made
    from bitwright.analysis.planning import find_plan
    from bitwright.errors import ModelConfigError

    model = load(tiny_directory("mixtral"))
    with pytest.raises(ModelConfigError, match="plans are not made of mixtures of experts yet"):
        find_plan(model, Budget(max_size=10**6))
    with pytest.raises(ModelConfigError, match="analyses are not made of mixtures of experts yet"):
        analyze(Made(model, "a test"), Recipe.uniform("int4-g32"), Examined("a text"))


def test_a_forecast_counts_the_experts_that_a_token_goes_through(tiny_directory: Callable[[str], Path]) -> None:
    from bitwright.calibration.forecast import _active_weights, _inputs, _layer_shapes

    model = load(tiny_directory("qwen3-moe"))
    attention = 2 * (64 * 128 + 2 * 64 * 64 + 128 * 64)  # q, k and v, o of two layers
    assert sum(rows * columns for rows, columns in _layer_shapes(model)) == attention + 2 * 6 * 3 * 64 * 64
    assert _active_weights(model) == attention + 2 * 3 * 3 * 64 * 64
    assert sum(share for _, share in _inputs(model)) == 2 * (2 + 2 * 3) + 1


def test_nothing_is_told_of_methods_that_look_at_no_text(tiny_directory: Callable[[str], Path], tmp_path: Path) -> None:
    quantized = quantize(load(tiny_directory("mixtral")), Recipe.uniform("int8-g32"))
    quantized.save(tmp_path / "out", strict=True)
    assert quantized.findings == ()


def test_a_router_in_the_recipe_is_refused(tiny_directory: Callable[[str], Path]) -> None:
    model = load(tiny_directory("mixtral"))
    name = "model.layers.0.block_sparse_moe.gate.weight"
    with pytest.raises(RecipeError, match="is a router, which stays in full precision"):
        quantize(model, Recipe((Choice(name, Scheme.parse("int8-g32")),)))


def test_methods_that_weigh_tokens_are_refused(tiny_directory: Callable[[str], Path]) -> None:
    with pytest.raises(RecipeError, match=r"'guided' does not take mixtures of experts yet; choose from nearest"):
        quantize(load(tiny_directory("mixtral")), Recipe.uniform("int4-g32", "guided"))
    with pytest.raises(RecipeError, match=r"guidance does not take mixtures of experts yet; leave it out"):
        quantize(load(tiny_directory("mixtral")), Recipe.uniform("int4-g32", "gptq", guidance=True))
