"""`bitwright analyze`: which layer hurts, and what to do about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from bitwright.cli.command_line import Argument, Option
from bitwright.cli.console import AllowSeen, note, print_json, print_table, progress
from bitwright.cli.places import check_places

if TYPE_CHECKING:
    from bitwright.core import Recipe

SHOWN = 12  # tensors in the table
STDOUT = "-"


def analyze(  # noqa: PLR0913 - one parameter an option
    model: Annotated[str, Argument("MODEL", help="The model before quantization.")],
    scheme: Annotated[str, Option("--scheme", help="Number format and granularity; see bitwright formats.")] = "int4-g64",
    method: Annotated[str, Option("--method", help="How codes are chosen; see bitwright methods.")] = "nearest",
    recipe: Annotated[Path | None, Option("--recipe", help="A recipe instead, such as `bitwright plan` writes.")] = None,
    text: Annotated[Path | None, Option("--text", help="UTF-8 text to measure on. [one that comes along]")] = None,
    tokens: Annotated[
        int | None, Option("--tokens", least=2, help="Tokens of the text for the whole. [4096, or 2048 with --estimate]")
    ] = None,
    probed: Annotated[
        int | None, Option("--probed", least=2, help="Of these, tokens for one tensor at a time. [1024, or 512 with --estimate]")
    ] = None,
    calibration: Annotated[str, Option("--calibration", help="self, a file, or org/name:config:split on the hub.")] = "self",
    allow_seen: AllowSeen = False,
    estimate: Annotated[bool, Option("--estimate", help="Estimate what each tensor loses, judged on 12 of them.")] = False,
    output: Annotated[Path | None, Option("-o", "--output", help="Page to write, an .html file.")] = None,
    json_place: Annotated[
        Path | None,
        Option("--json", help="File for the data; where none is named, stdout and nothing else. [beside the page]", alone=STDOUT),
    ] = None,
) -> None:
    """Measure which tensor loses what, and what would mend it.

    Every tensor is quantized alone and restored alone: two runs through the model for each. For large models --estimate tells
    all of them from one backward pass, and measures how well that orders a sample of them.
    """
    printed = json_place == Path(STDOUT)
    named = None if printed else json_place
    data = named or (None if output is None else output.with_suffix(".json"))
    check_places(
        {"MODEL": model, "--recipe": recipe, "--text": text, "--calibration": calibration},
        {"-o": output, "--json" if named else "the data of -o": data},
        "bitwright analyze",
    )
    from bitwright.analysis.analyze import Examined
    from bitwright.analysis.analyze import analyze as examine
    from bitwright.analysis.demonstration import demo_text
    from bitwright.analysis.documents import Made
    from bitwright.analysis.report import finite, write
    from bitwright.artifact.staging import write_file
    from bitwright.models import load

    said = f"--recipe {recipe}" if recipe else f"--scheme {scheme} --method {method}"
    made = Made(load(model), f"bitwright analyze {model} {said}{' --estimate' if estimate else ''}")
    examined = Examined(demo_text() if text is None else text, tokens, probed, allow_seen, estimate)
    document = finite(examine(made, _recipe(recipe, scheme, method), examined, calibration, progress))
    if output is not None:
        write(document, output, data)
    elif data is not None:
        write_file(data, json.dumps(document, indent=1) + "\n")
    if printed:
        print_json(document)
        return
    _show(document)
    if data is not None:
        note(f"wrote {data if output is None else f'{output} and {data}'}")


def _recipe(recipe: Path | None, scheme: str, method: str) -> Recipe:
    from bitwright.core import Recipe

    return Recipe.uniform(scheme, method) if recipe is None else Recipe.load(recipe)


def _show(document: dict[str, Any]) -> None:
    measured = document["shares"] == "measured"
    losses = {"KL alone": "kl_alone", "regained": "kl_regained"} if measured else {}
    losses["estimate"] = "kl_estimated"
    columns = ("tensor", "scheme", *losses, "SQNR dB", "output error")
    rows = [
        (
            tensor["name"],
            tensor["scheme"],
            *(f"{tensor[key]:.3g}" for key in losses.values()),
            "" if tensor["sqnr_db"] is None else f"{tensor['sqnr_db']:.1f}",
            "" if tensor["output_error"] is None else f"{100 * tensor['output_error']:.2g} %",
        )
        for tensor in document["tensors"][:SHOWN]
    ]
    print_table(document["verdict"], columns, rows, 2)
    kinds = [
        (kind["kind"], f"{100 * kind['weights_share']:.3g} %", f"{kind['kl']:.3g}", f"{100 * kind['kl_share']:.3g} %")
        for kind in document["kinds"]
    ]
    heading = ("kind", "of the weights", "KL" if measured else "KL, estimated", "of the sum")
    print_table("Kinds of tensors, the one that loses most for its size first", heading, kinds)
    whole = document["whole"]
    low, high = whole["loss_added_interval"]
    note(
        f"the model's own loss on this text is {whole['loss_reference']:.4g} nats a token, quantizing adds "
        f"{whole['loss_added']:.3g} ({low:.3g} to {high:.3g}): perplexity {whole['perplexity_reference']:.4g} -> "
        f"{whole['perplexity']:.4g}"
    )
    if measured:
        parts = document["additivity"]
        note(f"one by one they sum to {parts['sum_of_parts']:.3g}, together they cost {parts['together']:.3g} nats a token")
    if document["activations"] != "int8":
        note(f"measured with {document['activations']} activations, as the recipe says")
    for fix in document["fixes"]:
        note(
            f"{fix['tensor']} as {fix['to_scheme']}: {fix['kl_before']:.4g} -> {fix['kl_after']:.4g}, "
            f"{fix['extra_bytes'] / 1e3:.0f} kB more{'' if fix['measured'] else ', by estimate'}"
        )
