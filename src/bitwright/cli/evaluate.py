"""`bitwright eval`: what was lost, on a text of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from bitwright.cli.command_line import Argument, Option
from bitwright.cli.console import Json, megabytes, note, print_json, print_table, progress

LABELS = {
    "perplexity": "perplexity",
    "perplexity_reference": "perplexity, reference",
    "perplexity_ratio": "perplexity ratio",
    "kl_mean": "KL mean (nats)",
    "kl_median": "KL median",
    "kl_p99": "KL p99",
    "top1_agreement": "top-1 agreement",
}


def evaluate(  # noqa: PLR0913 - one parameter an option
    path: Annotated[str, Argument("PATH", help="The model to measure.")],
    text: Annotated[Path, Option("--text", help="UTF-8 text to measure on.")],
    reference: Annotated[
        str | None, Option("--reference", help="The model before quantization; without it, perplexity alone.")
    ] = None,
    context: Annotated[int, Option("--context", help="Tokens in a window.")] = 512,
    tokens: Annotated[int, Option("--tokens", help="Tokens of the text to use, from its beginning.")] = 32768,
    activations: Annotated[str, Option("--activations", help="int8, int16, fp32; simulated: int8-tensor, fp8-token.")] = "int8",
    calibration: Annotated[str, Option("--calibration", help="Text for static ranges; see quantize.")] = "self",
    allow_seen: Annotated[bool, Option("--allow-seen", help="Measure even on text that calibration saw.")] = False,
    as_json: Json = False,
) -> None:
    """Measure perplexity, KL and agreement against a reference.

    Each figure comes with its 95 % interval.
    """
    from bitwright.analysis.evaluate import evaluate as measure

    with progress("evaluating") as report:
        result = measure(path, reference, text, context, tokens, activations, report, allow_seen, calibration).to_dict()
    if as_json:
        print_json(result)
        return
    title = (
        f"{path}: {megabytes(result['size_bytes'])}, {result['bits_per_weight']:.2f} bits per weight; "
        f"{result['tokens']} tokens in {result['windows']} windows, {result['seconds']:.1f} s"
    )
    if result["simulated"]:
        note(f"{activations} activations are simulated in float: the engine has no kernels for them")
    print_table(title, ("figure", "value", "95 % interval"), _rows(result))


def _rows(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The figures that were measured, to five digits."""
    rows = []
    for key, label in LABELS.items():
        if result[key] is not None:
            low, high = result[f"{key}_interval"]
            rows.append((label, f"{result[key]:.5g}", f"{low:.5g} to {high:.5g}"))
    return rows
