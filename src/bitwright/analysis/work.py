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
    a, head = architecture, architecture.hidden_size * architecture.vocab_size
    seen = sum(_positions_seen(tokens, window or tokens) for window in a.window_of_layer)
    return 2 * ((weights_multiplied(a) - head) * tokens + 2 * a.heads * a.head_dim * seen + head)


def token_multiply_adds(architecture: Architecture, positions: int) -> int:
    """Of decoding a token that is the last of `positions`: one for each weight, and attention's two products."""
    a = architecture
    seen = sum(min(positions, window or positions) for window in a.window_of_layer)
    return weights_multiplied(a) + 2 * a.heads * a.head_dim * seen


def weights_multiplied(architecture: Architecture) -> int:
    """By one decoded token: all layers' matrices and the head; of a mixture the router, and the experts that are chosen."""
    a = architecture
    wide, narrow = a.heads * a.head_dim, a.kv_heads * a.head_dim
    mlp = 3 * a.intermediate_size * max(1, a.experts_per_token) + a.experts
    return a.hidden_size * (a.layers * (2 * wide + 2 * narrow + mlp) + a.vocab_size)


def _positions_seen(tokens: int, window: int) -> int:
    """Summed over all tokens: token t sees min(t + 1, window) positions."""
    growing = min(tokens, window)
    return growing * (growing + 1) // 2 + (tokens - growing) * window
