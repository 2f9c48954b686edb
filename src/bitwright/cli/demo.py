"""`bitwright demo`: the main job on the model that pip brings, no network needed."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from bitwright.cli.command_line import Option
from bitwright.cli.console import Json, megabytes, note, print_json, print_table, steps

if TYPE_CHECKING:
    from bitwright.analysis.demonstration import Row

PROMPT = "Why does bread rise in the oven? Answer in two sentences."
ANSWER_TOKENS = 80


def demo(
    output: Annotated[Path | None, Option("-o", "--output", help="Keep the quantized models in this directory.")] = None,
    prompt: Annotated[str, Option("--prompt", help="What the best small model is asked at the end.")] = PROMPT,
    as_json: Json = False,
) -> None:
    """Quantize SmolLM2-135M four ways and compare with full precision.

    At the end the best small model answers a prompt. Needs no network.
    """
    from bitwright.analysis.demonstration import best, compare, find_model

    begin = time.perf_counter()
    source = find_model()
    with working_directory(output) as directory:
        with steps() as step:
            rows = list(compare(source, directory, step))
        chosen = best(rows)
        if not as_json:
            print_rows(rows)
            note(verdict(chosen))
            sys.stdout.write(f"\n> {prompt}\n")
        pieces = []
        for piece in answer(chosen.path, prompt):
            pieces.append(piece)
            if not as_json:
                sys.stdout.write(piece)
                sys.stdout.flush()
        seconds = time.perf_counter() - begin
        if as_json:
            print_json(
                report(rows, chosen, kept=output is not None) | {"prompt": prompt, "answer": "".join(pieces), "seconds": seconds}
            )
        else:
            sys.stdout.write("\n")
            note(f"\n{seconds:.0f} s in all" + (f"; the models are in {directory}" if output else ""))


@contextmanager
def working_directory(output: Path | None) -> Iterator[Path]:
    """The directory to keep, made where it is missing, or one that vanishes afterwards."""
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        yield output
        return
    with tempfile.TemporaryDirectory(prefix="bitwright-demo-") as name:
        yield Path(name)


def print_rows(rows: Sequence[Row]) -> None:
    columns = (
        "scheme",
        "size",
        "bits per\nweight",
        "perplexity",
        "KL\n(nats)",
        "its 95 %\ninterval",
        "top-1\nagreement",
        "prefill\ntokens/s",
        "decode\ntokens/s",
    )
    print_table("SmolLM2-135M-Instruct, measured on this machine just now:", columns, [cells(row) for row in rows])


def cells(row: Row) -> tuple[str, ...]:
    low, high = row.kl_mean_interval
    return (
        row.scheme,
        megabytes(row.size_bytes),
        f"{row.bits_per_weight:.2f}",
        f"{row.perplexity:.2f}",
        f"{row.kl_mean:.4f}",
        f"{low:.4f} to {high:.4f}",
        f"{100 * row.top1_agreement:.1f} %",
        f"{row.prefill_tokens_per_s:.0f}",
        f"{row.decode_tokens_per_s:.0f}",
    )


def verdict(chosen: Row) -> str:
    """Which model answers, and why this one."""
    from bitwright.analysis.demonstration import ACCEPTABLE_KL

    if chosen.kl_mean <= ACCEPTABLE_KL:
        return f"{chosen.scheme} is the smallest with a KL of at most {ACCEPTABLE_KL}; it answers:"
    return f"none has a KL of at most {ACCEPTABLE_KL}; {chosen.scheme} lost least and answers:"


def answer(path: Path, prompt: str) -> Iterator[str]:
    """Greedy, by the engine's defaults, piece by piece."""
    from bitwright.cli.answer import prompt_tokens, text_of
    from bitwright.engine import Engine, Sampling
    from bitwright.models import load

    model = load(path)
    tokenizer = model.tokenizer()
    engine = Engine.load(model)
    yield from text_of(engine.generate(prompt_tokens(tokenizer, prompt, raw=False), Sampling(ANSWER_TOKENS)), tokenizer)


def report(rows: Sequence[Row], chosen: Row, kept: bool) -> dict[str, Any]:
    """JSON-ready; the path of a model that is about to vanish is null."""
    runs = [row.to_dict() | ({} if kept else {"path": None}) for row in rows]
    return {"model": "SmolLM2-135M-Instruct", "runs": runs, "answered_by": chosen.scheme}
