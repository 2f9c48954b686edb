"""`bitwright quantize`: a model goes in, a smaller one comes out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from bitwright.cli.command_line import Argument, Option
from bitwright.cli.console import Json, megabytes, note, print_json, progress
from bitwright.errors import FindingError, RecipeError

if TYPE_CHECKING:
    from bitwright.calibration.forecast import Forecast
    from bitwright.core import Recipe
    from bitwright.guards import Finding

SHOWN_FINDINGS = 20
DEFAULTS = {"scheme": "int4-g64", "method": "nearest", "fitting": "mse"}


def quantize(  # noqa: PLR0913 - one parameter an option
    model: Annotated[str, Argument("MODEL", help="Hugging Face directory or hub id, .gguf file or artifact.")],
    output: Annotated[Path, Option("-o", "--output", help="Directory to write; an artifact there is replaced.")],
    scheme: Annotated[str | None, Option("--scheme", help=f"Such as int4-g64 or int8-channel. [{DEFAULTS['scheme']}]")] = None,
    method: Annotated[str | None, Option("--method", help=f"See bitwright methods. [{DEFAULTS['method']}]")] = None,
    fitting: Annotated[str | None, Option("--fitting", help=f"See bitwright methods. [{DEFAULTS['fitting']}]")] = None,
    recipe: Annotated[Path | None, Option("--recipe", help="A .json or .toml recipe, instead of these options.")] = None,
    calibration: Annotated[
        str, Option("--calibration", help="self: text that the model writes; or a file; or org/name:config:split on the hub.")
    ] = "self",
    calibration_tokens: Annotated[int, Option("--calibration-tokens", least=1, help="How much of it is used.")] = 65536,
    guidance: Annotated[bool, Option("--guidance", help="Weigh what the method sees by what answers depend on.")] = False,
    head: Annotated[str | None, Option("--head", help="Scheme of the output head. [int8-channel below 8 bits]")] = None,
    rotate: Annotated[bool | None, Option("--rotate/--no-rotate", help="Turn inputs by a Hadamard matrix. [yes]")] = None,
    transform: Annotated[list[str] | None, Option("--transform", help="Such as fold or awq; see bitwright methods.")] = None,
    prune: Annotated[str | None, Option("--prune", help="Drop small weights: 0.5, row:0.5, block4x4:0.5 or 2:4.")] = None,
    distill: Annotated[int | None, Option("--distill", least=0, help="Passes over the text that train scales. [0]")] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Say what it will take, and do nothing.")] = False,
    strict: Annotated[bool, Option("--strict", help="Write nothing, and end with 1, where something looks wrong.")] = False,
    as_json: Json = False,
) -> None:
    """Quantize a model into a directory of its own.

    The directory appears whole or not at all.
    """
    from bitwright import quantize as quantize_model
    from bitwright.analysis.memory import peak_rss_bytes
    from bitwright.calibration.text import Source
    from bitwright.engine.fallback import refusal_of, tell_decoded
    from bitwright.engine.layout import decoded
    from bitwright.inspection import summary
    from bitwright.models import load

    begin = time.perf_counter()
    given: dict[str, Any] = {
        "scheme": scheme,
        "method": method,
        "fitting": fitting,
        "head": head,
        "rotate": rotate,
        "prune": prune,
        "distill": distill,
        "guidance": guidance or None,
    }
    given["transform"] = None if transform is None else tuple(name.strip() for names in transform for name in names.split(","))
    chosen = choose_recipe(recipe, {option: value for option, value in given.items() if value is not None})
    source = load(model)
    quantized = quantize_model(source, chosen, Source.of(calibration, calibration_tokens))
    fallback = decoded(quantized)
    if fallback and strict:
        if as_json:
            print_json({"findings": fallback_rows(fallback)})
        raise FindingError(refusal_of(fallback))
    tell_decoded(quantized, strict=False)
    expected = quantized.forecast()
    if dry_run:
        _say_forecast(expected, as_json)
        return
    quantized.calibrate(output, progress)
    try:
        with progress("quantizing") as report:
            size = summary(quantized.save(output, lambda name, done, total: report(done, total), strict))
    except FindingError:
        if as_json:
            print_json({"findings": [asdict(finding) for finding in quantized.findings]})
        raise
    finally:
        _say_findings(quantized.findings)
    figures = {key: size[key] for key in ("size_bytes", "bits_per_weight")}
    figures |= {"seconds": time.perf_counter() - begin, "peak_rss_bytes": peak_rss_bytes()}
    if as_json:
        findings = fallback_rows(fallback) + [asdict(finding) for finding in quantized.findings]
        print_json({"path": str(output)} | figures | {"findings": findings, "forecast": asdict(expected)})
        return
    note(
        f"wrote {output}: {megabytes(figures['size_bytes'])}, {figures['bits_per_weight']:.3f} bits per weight, "
        f"{figures['seconds']:.1f} s, {megabytes(figures['peak_rss_bytes'])} of memory at most"
    )
    note(
        f"forecast: {megabytes(expected.size_bytes)}, {expected.seconds + expected.writing_seconds:.1f} s, "
        f"{megabytes(expected.peak_rss_bytes)} of memory at most"
    )


def fallback_rows(found: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Findings, one for each matrix that the engine would decode to fp32: name -> schemes that make it do so."""
    why = "no integer kernel, so the engine decodes it to fp32"
    return [{"tensor": name, "kind": "decoded", "message": f"{' + '.join(schemes)}: {why}"} for name, schemes in found.items()]


def _say_findings(found: Sequence[Finding]) -> None:
    for finding in found[:SHOWN_FINDINGS]:
        note(f"warning: {finding.tensor}: {finding.message}")
    if len(found) > SHOWN_FINDINGS:
        note(f"warning: and {len(found) - SHOWN_FINDINGS} more; --json lists them all")


def _say_forecast(expected: Forecast, as_json: bool) -> None:
    if as_json:
        print_json({"forecast": asdict(expected)})
        return
    note(
        f"would write {megabytes(expected.size_bytes)} in about {expected.seconds:.0f} s, and take about "
        f"{expected.writing_seconds:.0f} s more for calibration text; {megabytes(expected.peak_rss_bytes)} of memory at most"
    )


def choose_recipe(recipe: Path | None, given: Mapping[str, Any]) -> Recipe:
    """The recipe of a file, or one scheme for all tensors. Raises `RecipeError` where both are asked for."""
    from bitwright.core import Recipe

    if recipe is not None:
        if given:
            raise RecipeError(f"--recipe already says what --{next(iter(given))} would; leave one of them out")
        return Recipe.load(recipe)
    scheme, method, fitting = (given.get(option, default) for option, default in DEFAULTS.items())
    others = given.get("head"), given.get("rotate"), given.get("prune", ""), given.get("transform", ()), given.get("distill", 0)
    return Recipe.uniform(scheme, method, fitting, *others, given.get("guidance", False))
