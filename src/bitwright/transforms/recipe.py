"""The transforms of a recipe: refused where they cannot be, then chained, with the recipe's rounding at hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bitwright.core import Choice, Recipe
from bitwright.errors import RecipeError
from bitwright.models.base import Dense, LanguageModel, Packed
from bitwright.observers.inputs import Inputs
from bitwright.transforms import TRANSFORMS, transformed
from bitwright.transforms.setting import Setting

Floats = npt.NDArray[np.float32]


class Text(Protocol):
    """Calibration text: `source` is a frozen dataclass that says which."""

    source: Any

    def inputs(self, model: LanguageModel) -> Iterable[Inputs]: ...


@dataclass(frozen=True)
class Rounding:
    """How a recipe's choices are made for a model, and how a matrix (name, tensor, choice) is stored by one."""

    choices: Callable[[LanguageModel, Recipe], Mapping[str, Choice]]
    quantize: Callable[[str, Dense, Choice], Packed | Dense]


def for_recipe(model: LanguageModel, recipe: Recipe, text: Text, rounding: Rounding) -> LanguageModel:
    """`model` after the recipe's transforms; nothing is computed yet. Raises `RecipeError`.

    Transforms that look at the rounding see that of the recipe, to nearest: their own steps are many.
    """
    if not recipe.transforms:
        return model
    check(recipe)

    @cache
    def choices() -> dict[str, Choice]:
        found = rounding.choices(result, recipe)
        return {name: replace(choice, method="nearest") for name, choice in found.items() if choice.scheme.scaled}

    def choice(role: str, layer: int) -> Choice | None:
        return choices().get(result.roles()[role, layer].name)

    def rounded(role: str, layer: int, weights: Floats) -> Floats:
        name = result.roles()[role, layer].name
        return rounding.quantize(name, Dense("fp32", weights), choices()[name]).dequantize()

    depends = json.dumps([asdict(text.source), recipe.to_dict()])
    result = transformed(model, recipe.transforms, Setting(text.inputs, choice, rounded), depends)
    return result


def check(recipe: Recipe) -> None:
    """The transforms exist, and nothing else in the recipe undoes them. Raises `RecipeError`."""
    for name in recipe.transforms:
        if name not in TRANSFORMS:
            raise RecipeError(f"unknown transform {name!r}; choose from {', '.join(TRANSFORMS)}")
        if recipe.transforms.count(name) > 1:
            raise RecipeError(f"transform {name} is asked for twice; once is enough")
        if TRANSFORMS[name].scales and any(choice.rotate for choice in recipe.choices):
            raise RecipeError(f"{name} scales columns, which rotate mixes again; turn one of them off")
        other = next((choice.method for choice in recipe.choices if choice.method != "nearest"), "")
        if name == "bias-correction" and other:
            raise RecipeError(f"bias-correction is for rounding to nearest, and {other} rounds otherwise; turn one of them off")
