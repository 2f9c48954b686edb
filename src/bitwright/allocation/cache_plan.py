"""Which type the KV cache has as a text grows, so that a run stays within its memory: runtime settings that a plan writes.

With b(t, n) the bytes of n positions of type t, and R the memory that is left for the cache, a text begins with the widest
type and goes over to the next while both still fit, for both are held at the switch:

    switch from t to u at the largest n with b(t, n) + b(u, n) <= R        the last type u needs b(u, context) <= R

Below so much free memory as the narrower cache of the whole context takes, the switch comes at once, threshold or not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bitwright.runtime import RuntimeSetting

SPAN = 256  # positions for which the engine takes memory at a time
TYPES = ("fp16", "int8", "int4")  # from the widest
Bytes = Callable[[str, int], int]  # type, positions -> bytes


def cache_settings(last: str, room: float, context: int, size: Bytes, activations: str = "int8") -> tuple[RuntimeSetting, ...]:
    """From the widest type that serves a span of text, to `last`. Nothing where all is the engine's own, fp16 and int8.

    `size(last, context)` is within `room`.
    """
    path = TYPES[: TYPES.index(last) + 1]
    settings: list[RuntimeSetting] = []
    reached = 0  # where the type at hand must go
    for wide, narrow in zip(path, path[1:], strict=False):
        until = _largest(wide, narrow, room, context, size)
        if until <= reached:
            continue  # it would hold for no text
        settings.append(_setting(wide, reached, settings, size(wide, context), activations))
        reached = until
    settings.append(_setting(last, reached, settings, size(last, context), activations))
    return tuple(settings) if path[1:] or activations != "int8" else ()


def peak_bytes(settings: Sequence[RuntimeSetting], context: int, size: Bytes) -> int:
    """The most that the cache takes on its way through the whole context, switches included."""
    peaks = [size(settings[-1].kv_cache, context)]
    for before, after in zip(settings, settings[1:], strict=False):
        peaks.append(size(before.kv_cache, after.from_context) + size(after.kv_cache, after.from_context))
    return max(peaks)


def _largest(wide: str, narrow: str, room: float, context: int, size: Bytes) -> int:
    """The largest whole number of spans of which both types fit, below the context."""
    spans = [n for n in range(SPAN, context, SPAN) if size(wide, n) + size(narrow, n) <= room]
    return max(spans, default=0)


def _setting(kind: str, begin: int, before: Sequence[RuntimeSetting], whole: int, activations: str) -> RuntimeSetting:
    """`whole` bytes has the cache of a whole context."""
    if begin == 0:
        return RuntimeSetting(kind, activations)
    needed = -(-whole // 10**6)
    smaller = all(needed < each.below_free_memory_mb for each in before if each.below_free_memory_mb)
    return RuntimeSetting(kind, activations, begin, needed if smaller else 0)
