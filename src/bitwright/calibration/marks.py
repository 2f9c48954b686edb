"""Marks that a text leaves, by which it is known again wherever windows are cut: to test on text that calibration saw flatters.

Every run of 24 tokens has a hash; those divisible by 32 are its marks, about one for 32 tokens. What is a mark depends on
the run alone, so a text shares its marks with all texts it overlaps with (winnowing, Schleimer et al. 2003, SIGMOD).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from bitwright.artifact import ArtifactModel

SPAN, ONE_IN = 24, 32
LEAST_COMMON, LEAST_SHARE = 2, 0.01  # marks in common from which a text counts as seen
KEY = "calibration_marks"  # of a manifest's source

Tokens = npt.NDArray[np.int32]
Marks = frozenset[int]  # 32 bits each


@runtime_checkable
class Remembers(Protocol):
    """A model that is not saved yet, and knows the text that it is calibrated on."""

    def marks(self) -> Marks: ...


def remembered(model: object) -> Marks:
    """Of all text that calibration of the model saw: by an artifact's manifest, or by the model itself while it is unsaved.

    Raises what reading that text raises.
    """
    if isinstance(model, ArtifactModel):
        return from_text(model.manifest.source.get(KEY, ""))
    return model.marks() if isinstance(model, Remembers) else frozenset()


def marks_of(windows: Iterable[Tokens]) -> Marks:
    """The marks of all windows."""
    found: set[int] = set()
    for window in windows:
        if len(window) >= SPAN:
            found.update(_marks(np.asarray(window, np.uint64)).tolist())
    return frozenset(found)


def _marks(tokens: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint32]:
    runs = len(tokens) - SPAN + 1
    hashes = np.zeros(runs, np.uint64)
    for k in range(SPAN):  # a polynomial in 2^64, then the finalizer of splitmix64
        hashes = hashes * np.uint64(0x100000001B3) + tokens[k : k + runs] + np.uint64(1)
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    chosen = hashes[hashes % np.uint64(ONE_IN) == 0] >> np.uint64(32)
    return np.asarray(chosen, np.uint32)


def seen_share(windows: Iterable[Tokens], marks: Marks) -> float:
    """The share of these windows' marks that are among `marks`; 0 where there are too few in common to tell."""
    own = marks_of(windows)
    common = len(own & marks)
    return common / len(own) if common >= LEAST_COMMON and common > LEAST_SHARE * len(own) else 0.0


def to_text(marks: Marks) -> str:
    """Eight hexadecimal digits a mark, sorted."""
    return "".join(f"{mark:08x}" for mark in sorted(marks))


def text_bytes(tokens: int) -> int:
    """About what `to_text` gives for so many tokens of calibration text."""
    return 8 * (tokens // ONE_IN)


def from_text(text: str) -> Marks:
    """The inverse of `to_text`; of a text that is none, nothing."""
    try:
        return frozenset(int(text[i : i + 8], 16) for i in range(0, len(text), 8))
    except ValueError:
        return frozenset()
