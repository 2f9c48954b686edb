"""`bitwright eval`: what was lost, on a text of your own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from bitwright.cli.command_line import Argument, Option
from bitwright.cli.console import Json, megabytes, print_json, print_table, progress

LABELS = {
    "perplexity": "perplexity",
    "perplexity_reference": "perplexity, reference",
    "perplexity_ratio": "perplexity ratio",
    "loss_reference": "loss, reference (nats)",
    "loss_added": "loss added",
    "kl_mean": "KL mean (nats)",
    "kl_median": "KL median",
    "kl_p99": "KL p99",
    "kl_max": "KL largest",
    "noise_floor_kl": "KL of fp16, the noise floor",
    "top1_agreement": "top-1 agreement",
    "flips": "top-1 flips",
    "flips_lost": "flips from the right token",
    "flips_gained": "flips to the right token",
}
KIND_COLUMNS = (
    "",
    "kind of token",
    "share",
    "of all KL",
    "KL mean",
    "95 % interval",
    "loss, ref.",
    "loss added",
    "95 % interval",
)


def evaluate(  # noqa: PLR0913 - one parameter an option
    path: Annotated[str, Argument("PATH", help="The model to measure.")],
    text: Annotated[Path, Option("--text", help="UTF-8 text to measure on.")],
    reference: Annotated[
        str | None, Option("--reference", help="The model before quantization; without it, perplexity alone.")
    ] = None,
    context: Annotated[int, Option("--context", help="Tokens in a window.")] = 512,
    tokens: Annotated[int, Option("--tokens", help="Tokens of the text to use, from its beginning.")] = 32768,
    activations: Annotated[str, Option("--activations", help="The engine's activations: int8, int16 or fp32.")] = "int8",
    allow_seen: Annotated[bool, Option("--allow-seen", help="Measure even on text that calibration saw.")] = False,
    by_kind: Annotated[bool, Option("--by-kind", help="Say on which kinds of token the loss lands.")] = False,
    as_json: Json = False,
) -> None:
    """Measure perplexity, KL and agreement against a reference.

    Each figure comes with its 95 % interval.
    """
    from bitwright.analysis.evaluate import evaluate as measure

    with progress("evaluating") as report:
        result = measure(path, reference, text, context, tokens, activations, report, allow_seen, by_kind).to_dict()
    if as_json:
        print_json(result)
        return
    title = (
        f"{path}: {megabytes(result['size_bytes'])}, {result['bits_per_weight']:.2f} bits per weight; "
        f"{result['tokens']} tokens in {result['windows']} windows, {result['seconds']:.1f} s"
    )
    print_table(title, ("figure", "value", "95 % interval"), _rows(result))
    if result["kinds"] is not None:
        print_table("Each token is of one kind in each group:", KIND_COLUMNS, list(map(_kind_row, result["kinds"])), words=2)


def _rows(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The figures that were measured, to five digits."""
    rows = []
    for key, label in LABELS.items():
        if result[key] is not None:
            rows.append((label, f"{result[key]:.5g}", _interval(result.get(f"{key}_interval"), 5)))
    return rows


def _kind_row(kind: dict[str, Any]) -> tuple[str, ...]:
    shares = (f"{100 * kind[name]:.1f} %" for name in ("share", "share_of_kl"))
    divergence = f"{kind['kl_mean']:.3g}", _interval(kind["kl_mean_interval"], 3)
    added = f"{kind['loss_added']:.3g}", _interval(kind["loss_added_interval"], 3)
    return kind["group"], kind["kind"], *shares, *divergence, f"{kind['loss_reference']:.3g}", *added


def _interval(bounds: Sequence[float] | None, digits: int) -> str:
    if bounds is None:
        return ""
    low, high = bounds
    return f"{low:.{digits}g} to {high:.{digits}g}"
