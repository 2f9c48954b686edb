"""Token weights: against derivatives taken by hand, and that they reach the gram."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", exc_type=ImportError)

import torch

from bitwright.calibration import guidance, sequential
from bitwright.calibration.decoder import Decoder
from bitwright.calibration.guidance import token_weights, windows_at_once
from bitwright.models import load
from bitwright.models.base import LanguageModel
from bitwright.observers.gram import Gram
from cli.helpers import tensors, write_model

WINDOWS = np.random.default_rng(4).integers(0, 200, (3, 24)).astype(np.int32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    directory: Path = tmp_path_factory.mktemp("guidance")
    return load(write_model(directory / "model", tensors()))


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guidance, "product_dtype", lambda: torch.float32)


def test_weights_are_squared_gradients_of_the_last_blocks_output(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `down` adds to the residual stream is what the head reads: its gradient can be taken without the blocks."""
    given = []
    whole = guidance._Pass._drawn

    def kept(self: guidance._Pass, decoder: Decoder, x: torch.Tensor) -> torch.Tensor:
        given.append(whole(self, decoder, x))
        return given[0]

    monkeypatch.setattr(guidance._Pass, "_drawn", kept)
    found = token_weights(model, WINDOWS)
    squares = given[0].square().sum(-1)
    np.testing.assert_allclose(found[model.architecture.layers - 1, 3], squares / squares.mean(), rtol=1e-4)
    assert set(found) == {(layer, stage) for layer in range(model.architecture.layers) for stage in range(4)}
    assert all(weights.shape == WINDOWS.shape and abs(weights.mean() - 1) < 1e-4 for weights in found.values())


def test_tokens_of_other_windows_do_not_matter(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of any size give the same, since drawing is by rows of the head."""
    whole = token_weights(model, WINDOWS)
    monkeypatch.setattr(guidance, "CHUNK_TOKENS", 24)
    for place, weights in token_weights(model, WINDOWS).items():
        np.testing.assert_allclose(weights, whole[place], rtol=1e-3, atol=1e-5)


def test_memory_is_bounded_and_changes_nothing(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows that go through the blocks one by one get the same weights as all at once."""
    together = token_weights(model, WINDOWS)
    monkeypatch.setattr(guidance, "CHUNK_TOKENS", 24)
    monkeypatch.setattr(guidance, "STREAMS_BYTES", 1)
    held = []
    whole = guidance._Pass._drawn

    def told(self: guidance._Pass, decoder: Decoder, x: torch.Tensor) -> torch.Tensor:
        held.append(len(x))
        return whole(self, decoder, x)

    monkeypatch.setattr(guidance._Pass, "_drawn", told)
    apart = token_weights(model, WINDOWS)
    assert held == [1, 1, 1]
    for place, weights in apart.items():
        np.testing.assert_allclose(weights, together[place], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("length", "streams", "expected"), [(24, 2**20, 42), (1024, 2**20, 1), (24, 2**23, 420)])
def test_windows_at_once_fit(
    length: int, streams: int, expected: int, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three streams of 64 float32 a token, those of whole chunks of 1024 tokens at most, one at least."""
    monkeypatch.setattr(guidance, "STREAMS_BYTES", streams)
    assert windows_at_once(model, length) == expected
    assert length == 1024 or expected * length * 64 * 4 * 3 <= streams


class Seeing:
    """Changes nothing; keeps the grams it is shown."""

    def __init__(self, model: LanguageModel, need: str) -> None:
        self.model, self.need, self.grams = model, need, {}

    def needs(self, name: str) -> str:
        return self.need if name.endswith("down_proj.weight") else ""

    def rounded(self, name: str, moments: Gram | None) -> np.ndarray:
        self.grams[name] = moments
        return self.model.read(name)


def test_the_gram_is_weighed(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """One token alone weighs something: the gram is of rank one, and the plain one is not."""
    alone = np.zeros(WINDOWS.shape, np.float32)
    alone[1, 5] = 3
    monkeypatch.setattr(sequential, "token_weights", lambda *_: {(layer, 3): alone for layer in range(9)})
    for need, rank in (("guided", 1), ("gram", 2)):
        seeing = Seeing(model, need)
        sequential.walk(model, WINDOWS, seeing)
        grams = [moments.gram for moments in seeing.grams.values() if moments is not None]
        assert len(grams) == model.architecture.layers
        assert all(min(np.linalg.matrix_rank(gram, tol=1e-6 * gram.trace()), 2) == rank for gram in grams)
