"""What a transform may look at beside the model, and what one is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bitwright.core import Choice
from bitwright.models.base import LanguageModel
from bitwright.observers.inputs import Inputs
from bitwright.transforms.model import Edit

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Setting:
    """Inputs and rounding, both asked for when needed.

    `inputs`   a model -> what its layers read on calibration text, in the order of computation, one at a time
    `choice`   (role, layer) -> how the recipe stores that matrix; None where it stays in full precision
    `rounded`  (role, layer, weights) -> the weights as they come back from being stored so, rounded to nearest
    """

    inputs: Callable[[LanguageModel], Iterable[Inputs]]
    choice: Callable[[str, int], Choice | None]
    rounded: Callable[[str, int, Floats], Floats]
    seed: int = 0


@dataclass(frozen=True)
class Transform:
    """One row of the table.

    `find`      the edits that make the transformed model of a model
    `check`     raises `RecipeError` for a model that cannot be transformed so, before any weight is read
    `observes`  whether it looks at inputs, so that calibration text is read
    `scales`    whether it scales columns, which rotating them would undo
    `unties`    whether a head that is the embedding becomes a tensor of its own
    `searches`  how many times each matrix is rounded on the way, for forecasts
    """

    find: Callable[[LanguageModel, Setting], Sequence[Edit]]
    check: Callable[[LanguageModel], None] = lambda model: None
    observes: bool = False
    scales: bool = False
    unties: bool = False
    searches: int = 0
