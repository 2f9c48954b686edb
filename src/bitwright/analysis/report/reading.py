"""A dataclass from plain JSON: every field is checked against its annotation, and a fault names its place.

Known annotations: str, bool, int, float, `X | None`, `tuple[X, ...]`, tuples of fixed length and dataclasses of those. Keys
that no field has are passed over, so that a document may say more than a page shows; null is a missing key. A number that is
not finite counts as missing where it may be missing, and is a fault elsewhere.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from bitwright.errors import ReportError

Record = TypeVar("Record")
WORDS = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}


def read(kind: type[Record], value: object, place: str) -> Record:
    """`value`, a mapping, as the dataclass `kind`. Raises `ReportError` with the place, such as tensors[3].bits."""
    if not isinstance(value, Mapping):
        raise ReportError(f"{place} of the report must be an object, not {_shown(value)}")
    assert dataclasses.is_dataclass(kind)
    hints, given = get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        optional = field.default is not dataclasses.MISSING
        if field.name in value and not (optional and value[field.name] is None):
            given[field.name] = _read(hints[field.name], value[field.name], f"{place}.{field.name}".removeprefix("document."))
        elif not optional:
            raise ReportError(f"{place} of the report lacks {field.name!r}")
    return kind(**given)


def _read(hint: Any, value: object, place: str) -> Any:
    if isinstance(hint, types.UnionType):
        (inner,) = (part for part in get_args(hint) if part is not types.NoneType)
        return None if value is None or _is_not_finite(value) else _read(inner, value, place)
    if get_origin(hint) is tuple:
        return _read_tuple(get_args(hint), value, place)
    if dataclasses.is_dataclass(hint):
        assert isinstance(hint, type)
        return read(hint, value, place)
    return _read_plain(hint, value, place)


def _read_tuple(parts: tuple[Any, ...], value: object, place: str) -> tuple[Any, ...]:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise ReportError(f"{place} of the report must be a list, not {_shown(value)}")
    if parts[-1] is not Ellipsis and len(value) != len(parts):
        raise ReportError(f"{place} of the report must have {len(parts)} entries, not {len(value)}")
    kinds = parts if parts[-1] is not Ellipsis else [parts[0]] * len(value)
    return tuple(
        _read(kind, part, f"{place}[{position}]") for position, (kind, part) in enumerate(zip(kinds, value, strict=True))
    )


def _read_plain(kind: type, value: object, place: str) -> Any:
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ReportError(f"{place} of the report must be {WORDS[kind]}, not {_shown(value)}")
    if _is_not_finite(value):
        raise ReportError(f"{place} of the report is {value}; leave out what has no finite value")
    return float(value) if isinstance(value, int) and kind is float else value


def _is_not_finite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _shown(value: object) -> str:
    return " ".join(repr(value).split())[:40]
