"""JSON from a stranger: duplicate keys, NaN, runaway nesting and runaway numbers are faults, not surprises."""

from __future__ import annotations

import json
from typing import Any


def parse(data: bytes) -> Any:
    """UTF-8 JSON. Raises `ValueError` alone, whatever the bytes."""
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError as fault:
        raise ValueError("it is nested too deeply") from fault


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key stands twice")
    return fields


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
