"""Matrices that no integer kernel takes are decoded to fp32: told when a model is loaded, or refused, not found out by its speed.

The logger `bitwright.engine` tells it, as a warning: where no logging is set up it is on stderr. Which matrices these are is in
engine/layout.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from bitwright.engine.layout import decoded
from bitwright.errors import EngineError
from bitwright.models.base import LanguageModel


def tell_decoded(model: LanguageModel, strict: bool) -> None:
    """One line for what of the model is decoded; none where that is nothing. With `strict`, raises `EngineError` instead."""
    found = decoded(model)
    if found and strict:
        raise EngineError(refusal_of(found))
    if found:
        _warn(_said_of(found))


def refusal_of(found: Mapping[str, Sequence[str]]) -> str:
    """`found`: name -> schemes that no integer kernel takes."""
    return f"{_said_of(found)}, or leave out strict"


def _said_of(found: Mapping[str, Sequence[str]]) -> str:
    schemes = ", ".join(dict.fromkeys(scheme for each in found.values() for scheme in each))
    matrices = "1 matrix" if len(found) == 1 else f"{len(found)} matrices"
    cure = "quantize to what `bitwright formats` holds as codes, look-up or bytes, in groups of a multiple of 32 columns"
    return f"{matrices} of {schemes}: no integer kernel, so decoded to fp32, 4 bytes a weight; {cure}"


@cache
def _warn(line: str) -> None:
    """Once in a process."""
    import logging  # here, because most models have nothing to tell and start sooner without it

    logging.getLogger("bitwright.engine").warning("%s", line)
