"""The reference against itself in half precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tiny
from bitwright.analysis import noise_floor
from bitwright.analysis.noise_floor import _Half, divergence
from bitwright.engine.reference import forward
from bitwright.models import load
from cli.helpers import tensors, write_model
from engine.measures import log_softmax


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BITWRIGHT_CACHE", str(tmp_path / "cache"))


@pytest.mark.filterwarnings("ignore:overflow")
def test_arithmetic_is_rounded_and_means_are_not() -> None:
    x = np.float32([[1 / 3, 3000, 2.0001]]).astype(np.float16).astype(np.float32).view(_Half)
    for result in (x @ x.T, x + x * np.float32(0.1), x / np.float32(3), np.float32(1) - x):
        assert isinstance(result, _Half) and np.array_equal(result, result.astype(np.float16).astype(np.float32), equal_nan=True)
    assert np.isinf(np.asarray(x @ x.T)).all()  # beyond fp16, as it would be there
    assert np.mean(np.square(x)) == pytest.approx((9e6 + 4 + 1 / 9) / 3, rel=1e-3)


def test_half_precision_is_close_and_not_equal(tmp_path: Path) -> None:
    model = load(write_model(tmp_path / "model", tensors()))
    window = np.array(tiny.tokens(100), np.int32)
    found = divergence(model, window)
    assert found is not None and found.shape == (99,) and found.min() >= 0
    assert 1e-8 < found.mean() < 1e-4
    # rounding the weights alone is part of it: as far again is as far as it may go
    halves = {name: value.astype(np.float16).astype(np.float32) for name, value in tensors().items()}
    p = log_softmax(forward(model, window[:-1]))
    q = log_softmax(forward(load(write_model(tmp_path / "half", halves)), window[:-1]))
    weights_alone = (np.exp(p) * (p - q)).sum(axis=1)
    assert weights_alone.mean() < found.mean() * 2


def test_a_mixture_of_experts_has_a_floor(tiny_directory: Callable[[str], Path]) -> None:
    found = divergence(load(tiny_directory("qwen3-moe")), np.array(tiny.tokens(40), np.int32))
    assert found is not None and 1e-8 < found.mean() < 1e-2  # where rounding turns a router's choice, more


def test_it_is_computed_once_and_on_few_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, window = load(write_model(tmp_path / "model", tensors())), np.array(tiny.tokens(200), np.int32)
    first = divergence(model, window)
    assert first is not None and len(first) == noise_floor.TOKENS
    monkeypatch.delattr(noise_floor, "_divergence")
    assert np.array_equal(divergence(model, window), first)


def test_a_model_that_fp16_cannot_hold_has_no_floor(tmp_path: Path) -> None:
    made = tensors()
    made["model.layers.0.mlp.down_proj.weight"] *= 1e5
    assert divergence(load(write_model(tmp_path / "model", made)), np.array(tiny.tokens(20), np.int32)) is None
