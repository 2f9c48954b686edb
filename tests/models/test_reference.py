"""The numpy twin of the engine against transformers, for every family, rope scaling and window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import tiny
from bitwright.engine.reference import forward, forward_hidden, visible
from bitwright.errors import ContextError
from bitwright.models.huggingface import HuggingFaceModel

LENGTHS = (24, 48)  # before and after the trained context of scaled ropes; both exceed the windows


def kl_divergence(reference: npt.NDArray[Any], logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """KL(reference || logits) per row."""
    p, q = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (reference.astype(np.float64), logits.astype(np.float64)))
    divergence: npt.NDArray[np.float64] = (np.exp(p) * (p - q)).sum(-1)
    return divergence


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("case", tiny.FAMILY_CASES)
def test_logits_are_those_of_transformers(case: str, n: int, tiny_directory: Callable[[str], Path]) -> None:
    directory, ids = tiny_directory(case), tiny.tokens(n)
    expected = tiny.reference_logits(directory, ids)
    logits = forward(HuggingFaceModel(directory), ids)
    assert logits.shape == (n, tiny.VOCABULARY) and logits.dtype == np.float32
    assert np.abs(logits - expected).max() < 5e-5
    assert kl_divergence(expected, logits).max() < 1e-9


SWITCHES: dict[str, tuple[str, dict[str, Any]]] = {
    "windows": ("gemma3", {"window_of_layer": (0,) * 6}),
    "rope of layer": ("gemma3", {"rope_of_layer": (0,) * 6}),
    "norm offset": ("gemma3", {"norm_offset": 0.0}),
    "q and k norms": ("qwen3", {"qk_norm": False}),
    "activation": ("gemma2", {"activation": "silu"}),
    "embedding scale": ("gemma2", {"embedding_scale": 1.0}),
    "attention scale": ("gemma2", {"attention_scale": 32**-0.5}),
    "attention softcap": ("gemma2", {"attention_softcap": 0.0}),
    "logit softcap": ("gemma2", {"logit_softcap": 0.0}),
    "epsilon": ("llama", {"norm_epsilon": 1e-3}),
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_shows_in_the_logits(switch: str, tiny_directory: Callable[[str], Path]) -> None:
    """Otherwise the comparison with transformers would prove nothing about it."""
    case, changes = SWITCHES[switch]
    model, ids = HuggingFaceModel(tiny_directory(case)), tiny.tokens(48)
    expected = forward(model, ids)
    model.architecture = replace(model.architecture, **changes)
    assert np.abs(forward(model, ids) - expected).max() > 2e-4


def test_a_longer_text_does_not_change_what_came_before(tiny_directory: Callable[[str], Path]) -> None:
    model = HuggingFaceModel(tiny_directory("gemma3"))
    np.testing.assert_allclose(forward(model, tiny.tokens(48))[:20], forward(model, tiny.tokens(20)), atol=2e-5)


def test_float64_agrees_and_hidden_states_lead_to_the_logits(tiny_directory: Callable[[str], Path]) -> None:
    model, ids = HuggingFaceModel(tiny_directory("qwen2")), tiny.tokens(12)
    precise = forward(model, ids, np.float64)
    assert precise.dtype == np.float64
    np.testing.assert_allclose(forward(model, ids), precise, atol=1e-4)
    head = model.read(model.roles()["head", -1].name)
    np.testing.assert_allclose(forward_hidden(model, ids) @ head.T, precise, atol=1e-4)


def test_visible_positions() -> None:
    assert visible(4, 2).astype(int).tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    assert visible(3, 0).astype(int).tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


@pytest.mark.parametrize("ids", [[], [-1], [tiny.VOCABULARY]])
def test_foreign_tokens_are_refused(ids: list[int], tiny_directory: Callable[[str], Path]) -> None:
    with pytest.raises(ContextError, match="numbers from 0 to 319"):
        forward(HuggingFaceModel(tiny_directory("llama")), ids)
