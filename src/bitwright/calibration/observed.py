"""The calibration text of one model: written or read once, when first asked for, and shared by all that look at it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from functools import cached_property

from bitwright.calibration.text import Source, Tokens, Watch, unwatched
from bitwright.errors import RecipeError
from bitwright.models.base import LanguageModel
from bitwright.observers.inputs import Inputs


def require_torch() -> None:
    """Raises `RecipeError`."""
    if importlib.util.find_spec("torch") is None:
        raise RecipeError(
            "methods and transforms that look at a layer's inputs need torch; pip install 'bitwright[quantize]', or use nearest"
        )


class CalibrationText:
    """What `source` gives for `model`; `writer` gives the model that writes text of its own. `watch` is told what is done."""

    def __init__(self, model: LanguageModel, source: Source, writer: Callable[[], LanguageModel]) -> None:
        self.model, self.source, self._writer = model, source, writer
        self.watch: Watch = unwatched

    @cached_property
    def windows(self) -> Tokens:
        """(windows, length). Raises `TextError`."""
        return self.source.tokens(self.model, self._writer, self.watch)

    def inputs(self, model: LanguageModel) -> Iterator[Inputs]:
        """What the layers of `model`, a form of the same, read on this text. Raises `RecipeError` without torch."""
        require_torch()
        from bitwright.calibration.forward import observe

        windows = self.windows
        with self.watch("observing layers' inputs") as progress:
            yield from observe(model, windows, progress)

    def __str__(self) -> str:
        """What a manifest says of it. Raises `TextError`."""
        count, length = self.windows.shape
        return f"{self.source.place}, {count} windows of {length} tokens, seed {self.source.seed}"
