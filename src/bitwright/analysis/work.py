"""What a token costs: the bytes that decoding reads for it, and the operations that a prompt's tokens take.

decode   weight bytes + for each layer 2 (keys, values) x kv heads x head size x stored bytes x positions seen
prompt   2 operations a multiply-add: each layer's matrices for each token; attention's two products for each position
         a token sees; the head once, for the last token
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitwright.models.architecture import Architecture


def cache_bytes_read(architecture: Architecture, bytes_a_position: float, positions: int) -> float:
    """Of keys and values, by a token that is the last of `positions`; the cache takes `bytes_a_position` in all layers."""
    seen = sum(min(positions, window or positions) for window in architecture.window_of_layer)
    return bytes_a_position * seen / architecture.layers


def prompt_operations(architecture: Architecture, tokens: int) -> int:
    """Operations of reading `tokens` tokens at once, with logits for the last."""
    a = architecture
    wide, narrow = a.heads * a.head_dim, a.kv_heads * a.head_dim
    matrices = a.hidden_size * (2 * wide + 2 * narrow + 3 * a.intermediate_size)
    seen = sum(_positions_seen(tokens, window or tokens) for window in a.window_of_layer)
    return 2 * (a.layers * matrices * tokens + 2 * wide * seen + a.hidden_size * a.vocab_size)


def _positions_seen(tokens: int, window: int) -> int:
    """Summed over all tokens: token t sees min(t + 1, window) positions."""
    growing = min(tokens, window)
    return growing * (growing + 1) // 2 + (tokens - growing) * window
