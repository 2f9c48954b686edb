"""`bitwright compare`: every method with every scheme, in one table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from bitwright.cli.combinations import combinations
from bitwright.cli.command_line import Argument, Option
from bitwright.cli.console import AllowSeen, Json, megabytes, note, print_json, print_table, steps
from bitwright.errors import OutputError

if TYPE_CHECKING:
    from bitwright.analysis.compare import Row

COLUMNS = (
    "method",
    "scheme",
    "size",
    "bits per\nweight",
    "KL\n(nats)",
    "its 95 %\ninterval",
    "perplexity",
    "top-1",
    "seconds",
    "peak\nmemory",
)


def compare(  # noqa: PLR0913 - one parameter an option
    model: Annotated[str, Argument("MODEL", help="Hugging Face directory or hub id, .gguf file or artifact.")],
    schemes: Annotated[str, Option("--schemes", help="Such as int4-g64,int8-channel.")] = "int8-channel,int4-g64",
    methods: Annotated[str, Option("--methods", help="Such as gptq,awq+gptq; see bitwright methods.")] = "nearest",
    text: Annotated[Path | None, Option("--text", help="UTF-8 text to measure on. [one that comes along]")] = None,
    tokens: Annotated[int, Option("--tokens", least=2, help="Tokens of the text to use, from its beginning.")] = 4096,
    calibration: Annotated[
        str, Option("--calibration", help="self: text that the model writes; or a file; or org/name:config:split on the hub.")
    ] = "self",
    calibration_tokens: Annotated[int, Option("--calibration-tokens", least=1, help="How much of it is used.")] = 65536,
    allow_seen: AllowSeen = False,
    output: Annotated[Path | None, Option("-o", "--output", help="Table to write: .json, .csv or .md.")] = None,
    as_json: Json = False,
) -> None:
    """Quantize by every method and scheme, and compare the losses.

    A .json that is there already goes on where it stopped.
    """
    recipes = combinations(methods, schemes)
    if output is not None:
        check_output(output)
    from bitwright.analysis.compare import Ruler
    from bitwright.analysis.compare import compare as measure
    from bitwright.analysis.demonstration import demo_text
    from bitwright.artifact.staging import write_file
    from bitwright.calibration.text import Source
    from bitwright.models import load

    source = load(model)
    ruler = Ruler(demo_text() if text is None else text, tokens, Source.of(calibration, calibration_tokens), allow_seen)
    settings = ruler.settings(source)
    rows = kept_rows(output, settings)
    if rows:
        note(f"{output} has {len(rows)} of the rows already")
    done = {(row.method, row.scheme) for row in rows}
    with steps() as step:
        for row in measure(source, {pair: recipe for pair, recipe in recipes.items() if pair not in done}, ruler, step):
            rows.append(row)
            if output is not None:
                write_file(output, WRITERS[output.suffix](settings, rows))
    if as_json:
        print_json(settings | {"rows": [row.to_dict() for row in rows]})
        return
    perplexity = next((row.measured.perplexity_reference for row in rows if row.measured), None)
    title = f"{model}, perplexity {perplexity:.5g} before" if perplexity else model
    print_table(f"{title}; {tokens} tokens at most of {text or 'the text that comes along'}", COLUMNS, list(map(cells, rows)), 2)
    for row in rows:
        if row.reason:
            note(f"{row.method} {row.scheme}: {row.reason}")


def check_output(output: Path) -> None:
    """Raises `OutputError` for what cannot be written, before any work."""
    if output.suffix not in WRITERS:
        raise OutputError(f"cannot write a table as {output.name!r}; end its name in {', '.join(WRITERS)}")
    from bitwright.artifact.staging import check_file

    check_file(output)


def kept_rows(output: Path | None, settings: Mapping[str, Any]) -> list[Row]:
    """What an earlier run with the same settings measured. Raises `OutputError` where a .json holds anything else."""
    from bitwright.analysis.compare import Measured, Row

    if output is None or output.suffix != ".json" or not output.exists():
        return []
    foreign = OutputError(f"{output} exists and holds another comparison, or none; remove it or choose another output")
    names = [field.name for field in fields(Measured)]
    try:
        data = json.loads(output.read_text("utf-8"))
        rows = data.pop("rows")
        if data != settings:
            raise foreign
        figures = [row | {"kl_mean_interval": tuple(row["kl_mean_interval"])} for row in rows if "reason" not in row]
        return [Row(row["method"], row["scheme"], Measured(*(row[name] for name in names))) for row in figures]
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise foreign from fault


def cells(row: Row) -> tuple[str, ...]:
    found = row.measured
    if found is None:
        return (row.method, row.scheme, "not possible", *("" for _ in COLUMNS[3:]))
    low, high = found.kl_mean_interval
    return (
        row.method,
        row.scheme,
        megabytes(found.size_bytes),
        f"{found.bits_per_weight:.3f}",
        f"{found.kl_mean:.4f}",
        f"{low:.4f} to {high:.4f}",
        f"{found.perplexity:.5g}",
        f"{100 * found.top1_agreement:.1f} %",
        f"{found.seconds:.1f}",
        megabytes(found.peak_rss_bytes),
    )


def as_json_text(settings: Mapping[str, Any], rows: Sequence[Row]) -> str:
    return json.dumps(dict(settings) | {"rows": [row.to_dict() for row in rows]}, indent=2, allow_nan=False) + "\n"


def as_csv(settings: Mapping[str, Any], rows: Sequence[Row]) -> str:
    from bitwright.analysis.compare import Measured

    names = [field.name for field in fields(Measured) if field.name != "kl_mean_interval"]
    columns = ["method", "scheme", *names, "kl_mean_low", "kl_mean_high", "reason"]
    text = io.StringIO()
    table = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    for row in rows:
        interval = row.measured.kl_mean_interval if row.measured else ("", "")
        table.writerow(row.to_dict() | dict(zip(columns[-3:-1], interval, strict=True)))
    return text.getvalue()


def as_markdown(settings: Mapping[str, Any], rows: Sequence[Row]) -> str:
    headings = [column.replace("\n", " ") for column in COLUMNS]
    lines: list[Sequence[str]] = [(*headings, "reason"), ("---",) * (len(headings) + 1)]
    lines += [(*cells(row), row.reason.replace("|", "\\|")) for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


WRITERS: dict[str, Callable[[Mapping[str, Any], Sequence[Row]], str]] = {
    ".json": as_json_text,
    ".csv": as_csv,
    ".md": as_markdown,
}
