"""A KV cache that a plan narrows stays within its memory at every length of text, switches included."""

from __future__ import annotations

import pytest

from bitwright.allocation.cache_plan import TYPES, cache_settings, peak_bytes
from bitwright.core import Recipe, Scheme
from bitwright.runtime import complete

WIDTH = {"fp16": 2.0, "int8": 1.1, "int4": 0.6}
CONTEXT = 8192


def size(kind: str, positions: int) -> int:
    return int(1000 * WIDTH[kind] * -(-positions // 256) * 256)


def held(settings: tuple, position: int) -> str:
    return next(each.kv_cache for each in reversed(settings) if each.from_context <= position)


@pytest.mark.parametrize("last", TYPES)
@pytest.mark.parametrize("room", [1.0, 1.3, 2.0])
def test_no_length_takes_more_than_there_is(last: str, room: float) -> None:
    limit = room * size(last, CONTEXT)
    settings = complete(cache_settings(last, limit, CONTEXT, size))
    if last == "fp16":
        assert settings == ()
        return
    assert settings[0].from_context == 0 and settings[-1].kv_cache == last
    assert peak_bytes(settings, CONTEXT, size) <= limit
    for position in range(0, CONTEXT, 128):
        assert size(held(settings, position), position) <= limit


def test_each_type_is_kept_as_long_as_the_next_fits_beside_it() -> None:
    limit = 1.2 * size("int8", CONTEXT)
    settings = cache_settings("int8", limit, CONTEXT, size)
    assert [each.kv_cache for each in settings] == ["fp16", "int8"]
    at = settings[1].from_context
    assert size("fp16", at) + size("int8", at) <= limit < size("fp16", at + 256) + size("int8", at + 256)
    assert settings[1].below_free_memory_mb == -(-size("int8", CONTEXT) // 10**6)
    assert Recipe((), Scheme("int8", 0), runtime=settings)


def test_a_cache_without_room_for_two_begins_narrow() -> None:
    settings = cache_settings("int4", size("int4", 512), 512, lambda kind, positions: size(kind, 512))
    assert [(each.kv_cache, each.from_context) for each in settings] == [("int4", 0)]
