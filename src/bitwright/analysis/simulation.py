"""What `evaluate` does where activations are none of the engine's: the model's hidden states, simulated."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from bitwright.activations.kind import Kind
from bitwright.analysis.scored_text import Tokens
from bitwright.analysis.unseen import require_unseen
from bitwright.calibration.marks import marks_of
from bitwright.calibration.observed import CalibrationText, require_torch
from bitwright.calibration.text import Source
from bitwright.core import Recipe
from bitwright.models.base import LanguageModel
from bitwright.quantization import quantize

Floats = npt.NDArray[np.float32]

OTHER_TEXT = "ranges would be fitted on it: take another for --calibration, or pass --allow-seen"
FEW_WINDOWS = 16  # of calibration text: a range needs less of it than a second moment


class Simulation:
    """One kind of activations by its spelling. Raises `EngineError` for one that does not exist, `TextError`, `RecipeError`."""

    def __init__(self, spelling: str, calibration: str | Source) -> None:
        self.kind = Kind.parse(spelling)
        self.calibration = calibration if isinstance(calibration, Source) else Source(calibration, FEW_WINDOWS)
        require_torch()
        if self.kind.static:
            self.calibration.check()

    def hidden(self, model: LanguageModel, writer: LanguageModel, windows: list[Tokens], allow_seen: bool) -> Iterator[Floats]:
        """What the head of `model` reads in each window. `writer` writes calibration text, where it is to write its own.

        Raises `TextError` where the ranges would be those of the windows themselves, unless `allow_seen`.
        """
        from bitwright.activations.simulation import hidden_states

        text = CalibrationText(writer, self.calibration, lambda: quantize(writer, Recipe.uniform("int8-channel")))
        known = text.windows if self.kind.static else None
        if known is not None and not allow_seen:
            require_unseen(windows, marks_of(known), OTHER_TEXT)
        return hidden_states(model, [np.asarray(window[:-1], np.int32) for window in windows], self.kind, known)
