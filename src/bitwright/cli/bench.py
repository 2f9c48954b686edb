"""`bitwright bench`: speed on this machine, beside what the machine allows."""

from __future__ import annotations

from typing import Annotated, Any

from bitwright.cli.command_line import Argument, Option
from bitwright.cli.console import Json, Strict, megabytes, print_json, print_table, progress
from bitwright.errors import EngineError

THREADS_HELP = "Thread counts, with commas between (default: 1 and all cores this process may use)."


def bench(  # noqa: PLR0913 - one parameter an option
    path: Annotated[str, Argument("PATH", help="The model to time.")],
    prompt: Annotated[int, Option("--prompt", help="Tokens to read at once (prefill).")] = 512,
    generate: Annotated[int, Option("--generate", help="Tokens to write one by one (decode).")] = 128,
    depth: Annotated[str, Option("--depth", help="Tokens in the context before decoding, with commas between.")] = "16",
    batch: Annotated[str, Option("--batch", help="Sequences to decode at once, with commas between.")] = "1",
    threads: Annotated[str | None, Option("--threads", help=THREADS_HELP)] = None,
    repeats: Annotated[int, Option("--repeats", help="Repeats, of which the median counts.")] = 3,
    kv_cache: Annotated[str, Option("--kv-cache", help="How keys and values are kept: fp16, int8, int4 or fp32.")] = "fp16",
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Time prefill and decode beside what the machine allows."""
    from bitwright.analysis.benchmark import Work
    from bitwright.analysis.benchmark import bench as measure
    from bitwright.engine.fallback import tell_decoded
    from bitwright.models import load

    work = Work(prompt, generate, counts("depths", depth), counts("batches", batch), repeats, kv_cache)
    thread_counts, model = None if threads is None else counts("thread counts", threads), load(path)
    tell_decoded(model, strict)
    with progress("timing") as report:
        result = measure(model, work, thread_counts, report)
    if as_json:
        print_json(result)
    else:
        _print(path, result)


def counts(what: str, written: str) -> tuple[int, ...]:
    """`1,2` -> (1, 2). Raises `EngineError`."""
    parts = [part.strip() for part in written.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise EngineError(f"cannot read the {what} {written!r}; write them like 1,2,4")
    return tuple(map(int, parts))


def _print(path: str, result: dict[str, Any]) -> None:
    from bitwright.allocation.energy import Energy

    machine, ceilings = result["machine"], result["ceilings"]
    rows = [
        (
            str(run["threads"]),
            f"{run['prefill_tokens_per_s']:.0f}",
            _percent(run["prefill_fraction_of_peak"]),
            str(decode["depth"]),
            str(decode["batch"]),
            f"{decode['decode_tokens_per_s']:.1f}",
            _percent(decode["decode_fraction_of_bandwidth"]),
            str(Energy(decode["joules_per_token"], decode["energy_source"])),
            megabytes(run["peak_rss_bytes"]),
        )
        for run in result["runs"]
        for decode in run["decodes"]
    ]
    title = (
        f"{path} on {machine['cpu']}, {machine['cores']} cores, {machine['isa']}: prefill of {result['prompt']}, "
        f"{result['generate']} decoded"
    )
    columns = (
        "threads",
        "prefill tok/s",
        "of peak",
        "depth",
        "batch",
        "decode tok/s",
        "of bandwidth",
        "energy a token",
        "peak RSS",
    )
    print_table(title, columns, rows)
    limits = [
        (threads, f"{read:.1f}", *(_billions(ceilings["matrix_ops_per_s"][kind][threads]) for kind in ("int8", "bf16")))
        for threads, read in ceilings["read_gb_per_s"].items()
    ]
    names = [f"{kind} ({instruction or 'none'})" for kind, instruction in ceilings["matrix_instruction"].items()]
    title = f"ceilings: reading {megabytes(ceilings['working_set_bytes'])} a decoded token, operations of registers alone"
    print_table(title, ("threads", "read GB/s", *(f"{name} Gop/s" for name in names)), limits)


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.0f} %"


def _billions(figure: float | None) -> str:
    return "" if figure is None else f"{figure / 1e9:.0f}"
