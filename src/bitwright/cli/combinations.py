"""How `bitwright compare` spells what it compares: parts of a method joined by +, methods and schemes with commas between.

    gptq               a rounding; where none is named, nearest
    nearest+entropy    and a fitting; where none is named, mse
    fold+awq+gptq      and transforms, done in this order
    gptq+guidance      with tokens weighed, as calibration/guidance.py does
    gptq+no-rotate     and whether columns are turned; where it is not said, as `Recipe.uniform` has it

Each is the recipe that `bitwright quantize` makes of options of these names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bitwright.errors import RecipeError

if TYPE_CHECKING:
    from bitwright.core import Recipe

Pair = tuple[str, str]  # method, scheme


def combinations(methods: str, schemes: str) -> dict[Pair, Recipe]:
    """The recipe of each method with each scheme, each recipe once.

    Raises `RecipeError` and `SchemeError` for a name that does not exist.
    """
    from bitwright.core import Recipe, Scheme

    chosen = [[part.strip() for part in method.split("+")] for method in methods.split(",")]
    options = [options_of(parts) for parts in chosen]
    recipes: dict[Pair, Recipe] = {}
    for scheme in [Scheme.parse(scheme) for scheme in schemes.split(",")]:
        for parts, given in zip(chosen, options, strict=True):
            recipe = Recipe.uniform(scheme, **given)
            if recipe not in recipes.values():
                recipes["+".join(parts), str(scheme)] = recipe
    return recipes


def options_of(parts: Sequence[str]) -> dict[str, Any]:
    """What `Recipe.uniform` takes. Raises `RecipeError` for a part that does not exist, or two that exclude each other."""
    from bitwright.fitting import CALIBRATED, FITTING
    from bitwright.rounding import ROUNDING
    from bitwright.transforms import TRANSFORMS

    exclusive: dict[str, dict[str, Any]] = {
        "method": {name: name for name in ROUNDING},
        "fitting": {name: name for name in (*FITTING, *CALIBRATED)},
        "rotate": {"rotate": True, "no-rotate": False},
        "guidance": {"guidance": True},
    }
    known = [name for names in (*exclusive.values(), TRANSFORMS) for name in names]
    for part in parts:
        if part not in known:
            raise RecipeError(f"unknown method {part!r}; choose from {', '.join(known)}; + joins several into one")
    options: dict[str, Any] = {"transforms": [part for part in parts if part in TRANSFORMS]}
    for option, values in exclusive.items():
        named = [part for part in parts if part in values]
        if len(named) > 1:
            raise RecipeError(f"{'+'.join(parts)} is not one method: {' and '.join(named)} exclude each other; a comma makes two")
        for name in named:
            options[option] = values[name]
    return options
