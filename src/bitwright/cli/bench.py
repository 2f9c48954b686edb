"""`bitwright bench`: speed on this machine, beside what the machine allows."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bitwright.cli.console import Json, megabytes, print_json, print_table, progress
from bitwright.errors import EngineError


def bench(  # noqa: PLR0913 - one parameter an option
    path: Annotated[str, typer.Argument(metavar="PATH", help="The model to time.")],
    prompt: Annotated[int, typer.Option("--prompt", help="Tokens to read at once (prefill).")] = 512,
    generate: Annotated[int, typer.Option("--generate", help="Tokens to write one by one (decode).")] = 128,
    threads: Annotated[str, typer.Option("--threads", help="Thread counts, with commas between.")] = "1,2",
    repeats: Annotated[int, typer.Option("--repeats", help="Repeats, of which the median counts.")] = 3,
    as_json: Json = False,
) -> None:
    """Time prefill and decode beside the memory's bandwidth."""
    from bitwright.analysis.benchmark import bench as measure

    with progress("timing") as report:
        result = measure(path, prompt, generate, thread_counts(threads), repeats, report)
    if as_json:
        print_json(result)
    else:
        _print(path, result)


def thread_counts(written: str) -> tuple[int, ...]:
    """`1,2` -> (1, 2). Raises `EngineError`."""
    counts = [part.strip() for part in written.split(",")]
    if not all(count.isdecimal() and int(count) > 0 for count in counts):
        raise EngineError(f"cannot read the thread counts {written!r}; write them like 1,2,4")
    return tuple(map(int, counts))


def _print(path: str, result: dict[str, Any]) -> None:
    machine, ceilings = result["machine"], result["ceilings"]
    rows = [
        (
            str(run["threads"]),
            f"{run['prefill_tokens_per_s']:.0f}",
            f"{run['decode_tokens_per_s']:.1f}",
            f"{100 * run['decode_fraction_of_bandwidth']:.0f} %",
            f"{ceilings['read_gb_per_s'][str(run['threads'])]:.1f}",
            megabytes(run["peak_rss_bytes"]),
        )
        for run in result["runs"]
    ]
    title = (
        f"{path} on {machine['cpu']}, {machine['cores']} cores, {machine['isa']}: prefill of {result['prompt']}, "
        f"{result['generate']} decoded, {megabytes(ceilings['working_set_bytes'])} of weights"
    )
    print_table(title, ("threads", "prefill tok/s", "decode tok/s", "of bandwidth", "read GB/s", "peak RSS"), rows)
