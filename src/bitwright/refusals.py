"""What of a recipe is refused before the first weight is read."""

from __future__ import annotations

from collections.abc import Sequence

from bitwright.core import Choice, Recipe
from bitwright.errors import RecipeError, SchemeError
from bitwright.fitting import CALIBRATED, FITTING
from bitwright.models.architecture import MODEL_MATRICES, ROUTER
from bitwright.models.base import LanguageModel
from bitwright.models.row_blocks import block_names, matrix_of, rows_in
from bitwright.rounding import ROUNDING, needs_of
from bitwright.rounding.even_steps import require_even_steps
from bitwright.rounding.needs import is_guided
from bitwright.sparsity.pruning import Pattern


def check_recipe(recipe: Recipe, model: LanguageModel) -> None:
    """Methods and fittings exist, and a pattern that is a plain name names a tensor. Raises `RecipeError`."""
    names = {*model.names(), *(block for blocks in blocks_in(recipe, model).values() for block in blocks)}
    for choice in recipe.choices:
        if choice.method not in ROUNDING:
            raise RecipeError(f"unknown method {choice.method!r}; choose from {', '.join(ROUNDING)}")
        if choice.fitting in CALIBRATED and not ROUNDING[choice.method].needs:
            raise RecipeError(f"fitting {choice.fitting!r} needs a method that calibrates; choose from {', '.join(FITTING)}")
        if choice.fitting not in {**FITTING, **CALIBRATED}:
            raise RecipeError(f"unknown fitting {choice.fitting!r}; choose from {', '.join({**FITTING, **CALIBRATED})}")
        if choice.guidance and not ROUNDING[choice.method].needs:
            raise RecipeError(f"guidance needs a method that calibrates, unlike {choice.method!r}; choose from {_calibrating()}")
        if choice.prune:
            _check_prune(choice)
        if not set(choice.pattern) & set("*?[") and choice.pattern not in names:
            raise RecipeError(f"the model has no tensor {choice.pattern!r}; `bitwright inspect` lists those it has")
    if model.architecture.experts:
        _check_mixture(recipe, model)


def _calibrating() -> str:
    return ", ".join(name for name, method in ROUNDING.items() if method.needs)


def _check_mixture(recipe: Recipe, model: LanguageModel) -> None:
    """What a mixture of experts does not take. Raises `RecipeError`."""
    routers = {place.name for (role, _), place in model.roles().items() if role == ROUTER}
    for choice in recipe.choices:
        if choice.pattern in routers:
            raise RecipeError(f"{choice.pattern} is a router, which stays in full precision; leave it out of the recipe")
        if choice.guidance:
            raise RecipeError("guidance does not take mixtures of experts yet; leave it out")
        if is_guided(needs_of(choice.method)):
            others = ", ".join(name for name in ROUNDING if not is_guided(needs_of(name)))
            raise RecipeError(f"method {choice.method!r} does not take mixtures of experts yet; choose from {others}")


def blocks_in(recipe: Recipe, model: LanguageModel) -> dict[str, list[str]]:
    """Matrix -> the blocks of its rows that the choices name, in order. Raises `RecipeError` for blocks that cannot be."""
    tables, names = {model.roles()[role, -1].name for role in MODEL_MATRICES}, frozenset(model.names())
    patterns = [choice.pattern for choice in recipe.choices if matrix_of(choice.pattern) in names]
    try:
        found = block_names(patterns)
    except ValueError as fault:
        raise RecipeError(str(fault)) from fault
    for matrix, blocks in found.items():
        if matrix not in tables:
            raise RecipeError(f"{matrix} cannot have blocks of rows; only embedding and head can")
        end, rows = rows_in(blocks[-1])[1], model.shape(matrix)[0]
        if end != rows:
            raise RecipeError(f"the blocks of {matrix} end at row {end}, and it has {rows} rows")
    return found


def _check_prune(choice: Choice) -> None:
    """The spelling is one, and nothing else in the choice would fill the zeros."""
    Pattern.parse(choice.prune)
    if choice.rotate:
        raise RecipeError(f"rotation would fill what prune {choice.prune!r} leaves zero; turn one of them off")
    if ROUNDING[choice.method].needs:
        plain = ", ".join(name for name, method in ROUNDING.items() if not method.needs)
        raise RecipeError(f"method {choice.method!r} would fill what prune {choice.prune!r} leaves zero; choose from {plain}")


def check_fit(name: str, shape: Sequence[int], choice: Choice) -> None:
    """The choice's scheme, method and pruning can be had of this tensor (rows, columns). Raises both, naming it."""
    try:
        if choice.scheme.scaled:
            choice.scheme.group_size(shape)
        if ROUNDING[choice.method].even_steps:
            require_even_steps(choice.scheme)
        if choice.prune:
            Pattern.parse(choice.prune).check((shape[0], shape[1]))
    except (SchemeError, RecipeError) as fault:
        raise type(fault)(f"{name}: {fault}") from fault
