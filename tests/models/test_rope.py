"""Rotary frequencies against those of transformers, and the parameters that are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bitwright.errors import ModelConfigError
from bitwright.models.architecture import Rope
from bitwright.models.families import read_architecture
from bitwright.models.rope import KINDS, inverse_frequencies

PAIRS = 16
SCALINGS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 8.0},
    "dynamic": {"rope_type": "dynamic", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 512,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512},
    "yarn by mscale": {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 512,
        "mscale": 0.707,
        "mscale_all_dim": 1.0,
        "beta_fast": 20,
        "beta_slow": 2,
    },
    "yarn untruncated": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 512,
        "truncate": False,
        "attention_factor": 1.25,
    },
    "longrope": {
        "rope_type": "longrope",
        "short_factor": [1 + 0.1 * i for i in range(PAIRS)],
        "long_factor": [2 + 0.7 * i for i in range(PAIRS)],
        "original_max_position_embeddings": 512,
    },
    "longrope by factor": {
        "rope_type": "longrope",
        "short_factor": [1.0] * PAIRS,
        "long_factor": [4.0] * PAIRS,
        "factor": 4.0,
        "original_max_position_embeddings": 512,
    },
}
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 32,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 2048,
}


def test_every_kind_is_compared() -> None:
    assert {scaling["rope_type"] for scaling in SCALINGS.values()} == set(KINDS)


@pytest.mark.parametrize("context", [64, 512, 513, 2048, 5000])
@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize("theta", [10000.0, 500000.0])
def test_frequencies_are_those_of_transformers(name: str, theta: float, context: int) -> None:
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    parameters = SCALINGS[name] | {"rope_theta": theta}
    config = transformers.LlamaConfig(
        hidden_size=64, num_attention_heads=2, max_position_embeddings=2048, rope_parameters=dict(parameters)
    )
    initialize = ROPE_INIT_FUNCTIONS.get(parameters["rope_type"], LlamaRotaryEmbedding.compute_default_rope_parameters)
    expected, expected_factor = initialize(config, device="cpu", seq_len=context)
    rope = read_architecture(CONFIG | {"rope_parameters": parameters}).ropes[0]
    frequencies, factor = inverse_frequencies(rope, context)
    assert frequencies.dtype == np.float32 and frequencies.shape == (PAIRS,)
    np.testing.assert_allclose(frequencies, expected.numpy(), rtol=3e-7)
    assert factor == pytest.approx(expected_factor, rel=1e-12)


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"rope_type": "spiral"}, "unknown rope scaling 'spiral'; known: default, linear"),
        ({"rope_type": 3}, "unknown rope scaling 3"),
        ({"rope_type": "linear", "factor": 0}, "'factor' must be a number above 0"),
        ({"rope_type": "linear", "factor": float("nan")}, "'factor'"),
        ({"rope_type": "linear", "factor": True}, "'factor'"),
        (SCALINGS["llama3"] | {"high_freq_factor": 1.0}, "high_freq_factor above low_freq_factor"),
        (SCALINGS["longrope by factor"] | {"long_factor": [1.0]}, "list of 16 numbers"),
        (SCALINGS["longrope by factor"] | {"short_factor": [1.0] * 15 + ["x"]}, "'short_factor' must be a number"),
        (SCALINGS["longrope by factor"] | {"original_max_position_embeddings": 1}, "above 1"),
    ],
)
def test_senseless_parameters_are_refused(scaling: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelConfigError, match=message):
        inverse_frequencies(Rope(10000.0, 2 * PAIRS, scaling), 64)


def test_degenerate_thetas_and_dims_are_refused() -> None:
    with pytest.raises(ModelConfigError, match="other than 1"):
        inverse_frequencies(Rope(1.0, 32, SCALINGS["yarn"]), 64)
    with pytest.raises(ModelConfigError, match="more than 2"):
        inverse_frequencies(Rope(1e4, 2, {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 8}), 64)
    with pytest.raises(ModelConfigError, match="no finite frequencies"):
        inverse_frequencies(Rope(1e-30, 32, {"rope_type": "linear", "factor": 1e-30}), 64)
