"""The walk computes what the slow twin computes, and shows each layer exactly its inputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch", exc_type=ImportError)

import tiny
from bitwright import _native
from bitwright.calibration import expert_walk, sequential
from bitwright.calibration.decoder import transposed_product
from bitwright.engine import reference
from bitwright.models import load
from bitwright.models.architecture import expert_of
from bitwright.models.base import LanguageModel
from bitwright.observers.gram import Gram

Floats = npt.NDArray[np.float32]
LENGTH = 40  # beyond all windows and trained positions


class Unchanged:
    """Rounds nothing, and keeps what it is shown."""

    def __init__(self, model: LanguageModel, needs: str = "gram", noise: float = 0.0) -> None:
        self.model, self._needs, self.noise = model, needs, noise
        self.seen: dict[str, Gram | None] = {}
        self.given: dict[str, Floats] = {}

    def needs(self, name: str) -> str:
        return self._needs

    def rounded(self, name: str, moments: Gram | None) -> Floats:
        assert name not in self.given, f"{name} is shown twice"
        weights = self.model.read(name)
        if self.noise and "embed" not in name:
            weights = weights + self.noise * np.random.default_rng(len(name)).standard_normal(weights.shape).astype(np.float32)
        self.seen[name], self.given[name] = moments, weights
        return weights


def windows(count: int = 3) -> npt.NDArray[np.int32]:
    return np.random.default_rng(3).integers(0, tiny.VOCABULARY, (count, LENGTH)).astype(np.int32)


def inputs_by_reference(model: LanguageModel, ids: npt.NDArray[np.int32], monkeypatch: pytest.MonkeyPatch) -> dict[str, Floats]:
    """Tensor's name -> what it multiplies, all windows below each other, by the slow twin."""
    seen: dict[str, list[Floats]] = {}
    linear, places = reference._linear, model.roles()

    def spy(x: Floats, weight: reference.Weight, role: str, layer: int) -> Floats:
        seen.setdefault(places[role, layer].name, []).append(x)
        return linear(x, weight, role, layer)

    monkeypatch.setattr(reference, "_linear", spy)
    last = [reference.forward_hidden(model, window) for window in ids]
    result = {name: np.concatenate(parts) for name, parts in seen.items()}  # of a fused tensor: once for each of its roles
    result[places["head", -1].name] = np.concatenate(last)
    return result


@pytest.mark.parametrize("case", tiny.FAMILY_CASES)
def test_moments_are_those_of_the_inputs(
    case: str, tiny_directory: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(sequential, "product_dtype", lambda: torch.float32)
    monkeypatch.setattr(expert_walk, "FEWEST_TOKENS", 1)
    model, ids = load(tiny_directory(case)), windows()
    watcher = Unchanged(model)
    reached = sequential.walk(model, ids, watcher)
    roles = model.roles()
    tokens = {name: ids.size for name in model.names()}
    tokens |= {place.name: reached.get((layer, expert_of(role)), ids.size) for (role, layer), place in roles.items()}  # type: ignore[arg-type]
    tied = roles["head", -1] == roles["embedding", -1]
    for name, rows in inputs_by_reference(model, ids, monkeypatch).items():
        if name == roles["head", -1].name and tied:
            continue
        moments = watcher.seen[name]
        assert moments is not None and moments.count == tokens[name] and len(rows) % tokens[name] == 0
        expected = rows.T.astype(np.float64) @ rows / len(rows)
        assert np.allclose(moments.gram, expected, rtol=1e-3, atol=1e-3 * expected.diagonal().max()), name


@pytest.mark.parametrize("columns", [5, 384, 400, 1000])
def test_products_are_numpys(columns: int) -> None:
    a, b = np.random.default_rng(1).standard_normal((2, 33, columns)).astype(np.float32)
    assert np.allclose(np.triu(transposed_product(a, a)), np.triu(a.T @ a), rtol=1e-5, atol=1e-4)
    assert np.allclose(transposed_product(a, b), a.T @ b, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("columns", [5, 400])
def test_bfloat16_products_sum_in_float32_and_leave_the_setting(columns: int) -> None:
    """Factors that are bfloat16 lose nothing; others as much as rounding them first, at most 2^-8 of sum |a| |b|."""
    import torch

    a, b = np.random.default_rng(1).standard_normal((2, 3000, columns)).astype(np.float32)
    before = torch.backends.mkldnn.matmul.fp32_precision
    for left, right in ((a, a), (a, b)):
        found, bound = transposed_product(left, right, torch.bfloat16), np.abs(left).T @ np.abs(right) / 256
        part = np.triu if left is right else np.asarray  # what is below the diagonal is not looked at
        assert (np.abs(part(found - left.T @ right)) <= bound).all()
        short = [torch.from_numpy(x).bfloat16().float().numpy() for x in (left, right)]
        rounded = [short[0], short[0] if left is right else short[1]]
        exact = rounded[0].astype(np.float64).T @ rounded[1]
        assert np.allclose(part(transposed_product(*rounded, torch.bfloat16)), part(exact), rtol=1e-5, atol=1e-2)
    assert torch.backends.mkldnn.matmul.fp32_precision == before


@pytest.mark.parametrize("columns", [1, 16, 33, 96, 200])
@pytest.mark.parametrize("tokens", [1, 31, 512, 1100, 3000])
def test_the_matrix_unit_multiplies_as_its_slow_twin(tokens: int, columns: int) -> None:
    """Sums in float32 of exact products: as far from the sums in double as float32 rounds, at any shape, on one core or more."""
    import torch

    if not _native.has_bfloat16_tiles():
        pytest.skip("this machine has no AMX-BF16")
    random = torch.Generator().manual_seed(tokens)
    x = (torch.randn(tokens, columns, generator=random) * torch.rand(columns, generator=random) * 9).bfloat16()
    weights = torch.rand(tokens, generator=random).numpy()
    for of_tokens in (None, weights):
        found, count = sequential.bfloat16_gram(x, of_tokens)
        seen = x if of_tokens is None else (x * torch.from_numpy(np.sqrt(weights))[:, None]).bfloat16()
        exact = (seen.double().T @ seen.double()).numpy()
        bound = 1e-6 * np.sqrt(np.outer(exact.diagonal(), exact.diagonal())) + 1e-12
        assert (np.abs(np.triu(found - exact)) <= bound).all() and not np.tril(found, -1).any()
        assert count == pytest.approx(tokens if of_tokens is None else weights.sum(), rel=1e-5)
        twin = transposed_product(seen.float().numpy(), seen.float().numpy(), torch.bfloat16)
        assert (np.abs(np.triu(found - twin)) <= 20 * bound).all()


@pytest.mark.parametrize(("case", "role"), [("llama", "down"), ("qwen3-moe", "o")])  # both streams through experts of their own
def test_drift_is_the_difference_of_two_walks(
    case: str, role: str, tiny_directory: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(sequential, "product_dtype", lambda: torch.float32)
    model, ids = load(tiny_directory(case)), windows()
    watcher = Unchanged(model, "cross", noise=0.05)
    sequential.walk(model, ids, watcher)
    first = watcher.seen[model.roles()["q", 0].name]
    assert first is not None and first.cross is not None and not first.cross.any()  # nothing was rounded before it

    original = inputs_by_reference(model, ids, monkeypatch)
    monkeypatch.undo()
    noisy = _Replaced(model, watcher.given)
    drifted = inputs_by_reference(noisy, ids, monkeypatch)  # type: ignore[arg-type]
    name = model.roles()[role, 1].name
    last = watcher.seen[name]
    assert last is not None and last.cross is not None
    expected = (original[name] - drifted[name]).T.astype(np.float64) @ drifted[name] / ids.size
    assert np.allclose(last.cross, expected, atol=1e-4 * np.abs(expected).max() + 1e-5)
    assert np.abs(expected).max() > 1e-3


class _Replaced:
    def __init__(self, model: LanguageModel, weights: dict[str, Floats]) -> None:
        self.model, self.weights, self.architecture = model, weights, model.architecture

    def roles(self) -> object:
        return self.model.roles()

    def read(self, name: str) -> Floats:
        return self.weights[name] if name in self.weights else self.model.read(name)
