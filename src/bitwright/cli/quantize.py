"""`bitwright quantize`: a model goes in, a smaller one comes out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from bitwright.cli.command_line import Argument, Option
from bitwright.cli.console import Json, megabytes, note, print_json, progress
from bitwright.errors import RecipeError

if TYPE_CHECKING:
    from bitwright.core import Recipe

DEFAULTS = {"scheme": "int4-g64", "method": "nearest", "fitting": "mse"}


def quantize(  # noqa: PLR0913 - one parameter an option
    model: Annotated[str, Argument("MODEL", help="Hugging Face directory or hub id, .gguf file or artifact.")],
    output: Annotated[Path, Option("-o", "--output", help="Directory to write; an artifact there is replaced.")],
    scheme: Annotated[str | None, Option("--scheme", help=f"Such as int4-g64 or int8-channel. [{DEFAULTS['scheme']}]")] = None,
    method: Annotated[str | None, Option("--method", help=f"See bitwright methods. [{DEFAULTS['method']}]")] = None,
    fitting: Annotated[str | None, Option("--fitting", help=f"See bitwright methods. [{DEFAULTS['fitting']}]")] = None,
    recipe: Annotated[Path | None, Option("--recipe", help="A .json or .toml recipe, instead of these options.")] = None,
    calibration: Annotated[str, Option("--calibration", help="A text file, or self: text that the model writes.")] = "self",
    head: Annotated[str | None, Option("--head", help="Scheme of the output head. [int8-channel below 8 bits]")] = None,
    rotate: Annotated[bool | None, Option("--rotate/--no-rotate", help="Turn inputs by a Hadamard matrix. [yes]")] = None,
    as_json: Json = False,
) -> None:
    """Quantize a model into a directory of its own.

    The directory appears whole or not at all.
    """
    from bitwright import quantize as quantize_model
    from bitwright.analysis.memory import peak_rss_bytes
    from bitwright.inspection import summary
    from bitwright.models import load

    begin = time.perf_counter()
    given = {"scheme": scheme, "method": method, "fitting": fitting, "head": head, "rotate": rotate}
    chosen = choose_recipe(recipe, {option: value for option, value in given.items() if value is not None})
    quantized = quantize_model(load(model), chosen, calibration)
    with progress("quantizing") as report:
        size = summary(quantized.save(output, lambda name, done, total: report(done, total)))
    seconds = time.perf_counter() - begin
    if as_json:
        figures = {key: size[key] for key in ("size_bytes", "bits_per_weight")}
        print_json({"path": str(output)} | figures | {"seconds": seconds, "peak_rss_bytes": peak_rss_bytes()})
    else:
        note(f"wrote {output}: {megabytes(size['size_bytes'])}, {size['bits_per_weight']:.3f} bits per weight, {seconds:.1f} s")


def choose_recipe(recipe: Path | None, given: Mapping[str, Any]) -> Recipe:
    """The recipe of a file, or one scheme for all tensors. Raises `RecipeError` where both are asked for."""
    from bitwright.core import Recipe

    if recipe is not None:
        if given:
            raise RecipeError(f"--recipe already says what --{next(iter(given))} would; leave one of them out")
        return Recipe.load(recipe)
    scheme, method, fitting = (given.get(option, default) for option, default in DEFAULTS.items())
    return Recipe.uniform(scheme, method, fitting, given.get("head"), given.get("rotate", True))
