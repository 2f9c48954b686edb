"""One sequence that an engine is reading or writing: its KV cache, and the tokens that are in it."""

from __future__ import annotations

from collections.abc import Sequence as Items

from bitwright import _native


class Sequence:
    """`tokens` have been read; their keys and values are in the cache. Engines make these and read into them."""

    def __init__(self, native: _native.Sequence) -> None:
        self.native = native
        self.tokens: list[int] = []
        self.setting = 0  # number of the runtime setting that it is read with
        self.kept_from = 0  # tokens before this were converted when more had been read: they serve no shorter text

    @property
    def position(self) -> int:
        """Tokens that have been read."""
        return len(self.tokens)

    @property
    def context(self) -> int:
        """Tokens that fit."""
        return int(self.native.context)

    @property
    def cache_bytes(self) -> int:
        """Memory that the tokens read so far take: whole spans of 256 positions."""
        return int(self.native.cache_bytes(self.position))

    def rewind(self, position: int) -> None:
        """Forget all but the first `position` tokens."""
        del self.tokens[position:]
        self.native.rewind(len(self.tokens))

    def keep_common(self, tokens: Items[int]) -> int:
        """Forget what `tokens` do not begin with, and return how many of them need not be read again.

        The last of `tokens` always has to be read: its logits are asked for, and they are not in the cache.
        """
        common = 0
        for ours, theirs in zip(self.tokens, tokens[:-1], strict=False):
            if ours != theirs:
                break
            common += 1
        common = 0 if common < self.kept_from else common
        self.rewind(common)
        return common
