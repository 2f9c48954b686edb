"""`bitwright eval`: what was lost, on a text of your own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from bitwright.cli.command_line import Argument, Option, UsageError
from bitwright.cli.console import AllowSeen, Json, megabytes, note, print_json, print_table, progress

if TYPE_CHECKING:
    from bitwright.analysis.tasks import Comparison

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
TASK_COLUMNS = ("figure", "value", "95 % interval", "reference", "worse by", "95 % interval", "p (McNemar)")
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
    text: Annotated[Path | None, Option("--text", help="UTF-8 text to measure on; may be left out with --task.")] = None,
    reference: Annotated[
        str | None, Option("--reference", help="The model before quantization; without it, perplexity alone.")
    ] = None,
    context: Annotated[int, Option("--context", help="Tokens in a window.")] = 512,
    tokens: Annotated[int, Option("--tokens", help="Tokens of the text to use, from its beginning.")] = 32768,
    activations: Annotated[
        str, Option("--activations", help="int8, int16, fp32; simulated: fp8-token. [the recipe's, or int8]")
    ] = "",
    kv_cache: Annotated[str, Option("--kv-cache", help="fp32, fp16, int8 or int4.")] = "fp16",
    calibration: Annotated[str, Option("--calibration", help="Text for static ranges; see quantize.")] = "self",
    allow_seen: AllowSeen = False,
    by_kind: Annotated[bool, Option("--by-kind", help="Say on which kinds of token the loss lands.")] = False,
    task: Annotated[Path | None, Option("--task", help="What to ask, one JSON object a line.")] = None,
    as_json: Json = False,
) -> None:
    """Measure perplexity, KL and agreement against a reference.

    Each figure comes with its 95 % interval. With --task, also accuracy, word error rate or AUC.
    """
    from bitwright.analysis.evaluate import evaluate as measure
    from bitwright.analysis.tasks import compare_task, read_task
    from bitwright.calibration.marks import remembered
    from bitwright.models import load

    if text is None and task is None:
        raise UsageError("Missing option --text (or --task)", "bitwright eval")
    asked = None if task is None else read_task(task)
    if asked is not None:
        model = load(path)
        asked.check(model)  # a fault in it is told before minutes of work
        if not allow_seen:
            asked.require_unseen(model, remembered(model))
    result: dict[str, Any] = {}
    if text is not None:
        with progress("evaluating") as report:
            result = measure(
                path, reference, text, context, tokens, activations, report, allow_seen, by_kind, calibration, kv_cache
            ).to_dict()
    compared = None
    if asked is not None:
        with progress("asking") as report:
            compared = compare_task(asked, path, reference, activations, kv_cache, report, allow_seen)
        result |= compared.to_dict()
    if as_json:
        print_json(result)
        return
    if text is not None:
        _print_text(path, result)
    if compared is not None:
        title = f"{path}: {result['task_items']} lines of {task}, {compared.kind}"
        print_table(title, TASK_COLUMNS, _task_rows(compared, result))


def _print_text(path: str, result: dict[str, Any]) -> None:
    title = (
        f"{path}: {megabytes(result['size_bytes'])}, {result['bits_per_weight']:.2f} bits per weight; "
        f"{result['tokens']} tokens in {result['windows']} windows, {result['seconds']:.1f} s"
    )
    if result["simulated"]:
        note(f"{result['activations']} activations are simulated in float: the engine has no kernels for them")
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


def _task_rows(compared: Comparison, result: dict[str, Any]) -> list[tuple[str, ...]]:
    """Each figure; the reference's, and by how much it is worse, where there is one."""
    rows = []
    for way, statistic in compared.model.ways.items():
        name, drop = f"task_{compared.model.key}{way}", f"task_drop{way}"
        row = [statistic.name, f"{result[name]:.4f}", _interval(result[f"{name}_interval"], 4)]
        if result[drop] is not None:
            row += [f"{result[f'{name}_reference']:.4f}", f"{result[drop]:.4f}", _interval(result[f"{drop}_interval"], 4)]
            row += [] if result[f"{drop}_p"] is None else [f"{result[f'{drop}_p']:.3g}"]
        rows.append(tuple(row))
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
