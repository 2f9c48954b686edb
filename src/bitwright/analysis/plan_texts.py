"""A plan's texts, of which no two share anything: what sensitivities and rounding see, what plans are compared on, and what they
are proved on.

All of them the model writes itself, unless the user gives one for calibration and another to verify on. What it wrote before
is in the cache: what a plan will find there can be asked without writing anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from bitwright.analysis.plan_types import Settings
from bitwright.analysis.unseen import require_unseen
from bitwright.calibration.marks import Marks
from bitwright.calibration.self_written import missing_tokens, self_written
from bitwright.calibration.text import Source, Watch, cut, unwatched
from bitwright.core import Recipe
from bitwright.errors import TextError
from bitwright.models.base import LanguageModel
from bitwright.quantization import quantize

Tokens = npt.NDArray[np.int32]

PLAN_WINDOWS, PLAN_LENGTH = 16, 512  # of the calibration text, that sensitivities are found on
ESTIMATE_WINDOWS, ESTIMATE_LENGTH = 16, 160  # the same, where nothing is made
PROOF_WINDOWS, CLIMBING_WINDOWS, HELD_OUT_LENGTH = 16, 4, 256  # of text that nothing else sees


@dataclass(frozen=True)
class HeldOut:
    """Windows that neither the plan nor calibration sees: for the proof, and for comparing plans."""

    proof: Sequence[Tokens] = ()
    climbing: Sequence[Tokens] = ()

    @classmethod
    def of(cls, windows: Tokens) -> Self:
        """Raises `TextError` for fewer than two."""
        if len(windows) < 2:  # noqa: PLR2004
            raise TextError(f"a plan is proved on two windows of {windows.shape[1]} tokens at least; give a longer text (--text)")
        every = max(2, -(-len(windows) // CLIMBING_WINDOWS))
        return cls([window for number, window in enumerate(windows) if number % every], list(windows[::every]))


def source_of(settings: Settings) -> Source:
    """Calibration text: an estimate needs no more than the sensitivities are found on."""
    source = settings.calibration
    if settings.verify:
        return source
    return replace(source, windows=min(source.windows, ESTIMATE_WINDOWS), length=min(source.length, ESTIMATE_LENGTH))


def part_for_sensitivities(windows: Tokens) -> Tokens:
    """Of calibration text."""
    return windows[:PLAN_WINDOWS, :PLAN_LENGTH]


def part_for_running(windows: Tokens) -> list[Tokens]:
    """Of calibration text: as much as a proof takes, for what is measured of the engine before there is a plan."""
    return list(windows[:PROOF_WINDOWS, :HELD_OUT_LENGTH])


def writer_of(model: LanguageModel) -> LanguageModel:
    """A faster form of it."""
    return quantize(model, Recipe.uniform("int8-channel"))


def held_out(model: LanguageModel, settings: Settings, marks: Marks, watch: Watch) -> HeldOut:
    """`marks` are those of what the plan and calibration see. Raises `TextError` where the user's text has been seen, or is too
    short.
    """
    if settings.held_out is not None:
        found = _cut(model, settings.held_out)
        require_unseen([*found.proof, *found.climbing], marks, "verify on another one (--text)")
        return found
    with watch("writing text to verify on") as progress:
        shape, seed = _shape(model), settings.calibration.seed + 1
        return HeldOut.of(self_written(model, shape, seed, lambda: writer_of(model), progress))


def unwritten_tokens(model: LanguageModel, settings: Settings) -> int:
    """Of the text to verify on, that the model has still to write."""
    if not settings.verify or settings.held_out is not None:
        return 0
    return missing_tokens(model, _shape(model), settings.calibration.seed + 1)


def known_held_out(model: LanguageModel, settings: Settings) -> HeldOut | None:
    """The same, where nothing has to be written for it. Raises `TextError` for a text that is too short."""
    if settings.held_out is not None:
        return _cut(model, settings.held_out)
    return None if unwritten_tokens(model, settings) else held_out(model, settings, Marks(), unwatched)


def known_calibration(model: LanguageModel, settings: Settings) -> Tokens | None:
    """What sensitivities are found on, where it has neither to be written nor to be fetched."""
    source = source_of(settings)
    if source.place == "self":
        source = replace(source, windows=min(source.windows, PLAN_WINDOWS))  # each is the same, however many there are
        shape = source.windows, min(source.length, model.architecture.context_length)
        if missing_tokens(model, shape, source.seed):
            return None
    elif not Path(source.place).is_file():
        return None
    return part_for_sensitivities(source.tokens(model, lambda: writer_of(model), unwatched))


def _cut(model: LanguageModel, text: str) -> HeldOut:
    return HeldOut.of(cut(model, text, _shape(model), "the text"))


def _shape(model: LanguageModel) -> tuple[int, int]:
    return PROOF_WINDOWS + CLIMBING_WINDOWS, min(HELD_OUT_LENGTH, model.architecture.context_length)
