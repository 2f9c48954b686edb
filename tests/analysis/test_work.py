"""Bytes and operations of a token, against sums written out one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bitwright.analysis.work import cache_bytes_read, prompt_operations
from bitwright.models.architecture import Architecture, Rope

SMALL = Architecture(
    family="llama",
    hidden_size=6,
    intermediate_size=10,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=3,
    vocab_size=50,
    context_length=100,
    ropes=(Rope(1e4, 2),),
    rope_of_layer=(0, 0),
    window_of_layer=(0, 5),
)


@pytest.mark.parametrize("tokens", [1, 4, 5, 6, 20])
def test_operations_of_a_prompt(tokens: int) -> None:
    multiply_adds = 6 * 50  # the head, for the last token
    for window in SMALL.window_of_layer:
        for token in range(tokens):
            multiply_adds += 2 * 6 * 12 + 2 * 6 * 6 + 3 * 6 * 10  # q and o, k and v, gate and up and down
            seen = min(token + 1, window) if window else token + 1
            multiply_adds += 2 * 4 * 3 * seen  # scores and sums of all heads
    assert prompt_operations(SMALL, tokens) == 2 * multiply_adds


def test_operations_of_a_mixture() -> None:
    mixture = replace(SMALL, experts=8, experts_per_token=3)
    more = 2 * 6 * ((3 - 1) * 3 * 10 + 8)  # in 2 layers: gate, up and down of two experts more, and the router
    assert prompt_operations(mixture, 5) - prompt_operations(SMALL, 5) == 2 * 5 * more


def test_bytes_of_the_cache() -> None:
    assert cache_bytes_read(SMALL, 2 * 48.0, 3) == 48 * (3 + 3)
    assert cache_bytes_read(SMALL, 2 * 48.0, 40) == 48 * (40 + 5)
    assert cache_bytes_read(replace(SMALL, window_of_layer=(0, 0)), 2 * 48.0, 40) == 48 * 80
