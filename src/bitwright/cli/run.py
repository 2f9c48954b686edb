"""`bitwright run`: one prompt, one answer, written out as it is made."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from bitwright.cli.console import Json, Threads, print_json, progress
from bitwright.errors import EngineError

Context = Annotated[int | None, typer.Option("--context", help="Tokens that prompt and answer may take (default: the model's).")]
Temperature = Annotated[float, typer.Option("--temperature", help="0 always takes the likeliest token; higher is more varied.")]
TopK = Annotated[int, typer.Option("--top-k", help="Choose among the K likeliest tokens (0: all).")]
TopP = Annotated[float, typer.Option("--top-p", help="Choose among the likeliest tokens that together have this probability.")]
MinP = Annotated[float, typer.Option("--min-p", help="Drop tokens below this share of the likeliest one's probability.")]
Penalty = Annotated[float, typer.Option("--repetition-penalty", help="Above 1 disfavours tokens that occurred already.")]
Seed = Annotated[int, typer.Option("--seed", help="The same seed gives the same answer.")]
Stop = Annotated[list[str] | None, typer.Option("--stop", help="End the answer before this text; may be given several times.")]
Overflow = Annotated[
    str, typer.Option("--overflow", help="When the context is full: error, or slide (forget the oldest tokens).")
]

KvCache = Annotated[
    str, typer.Option("--kv-cache", help="How keys and values are kept: fp16, fp32, int8 or int4 (least memory).")
]
Lookup = Annotated[int, typer.Option("--lookup", help="Guess up to N tokens at a step from the text so far (0: none).")]


def run(  # noqa: PLR0913 - one parameter an option
    path: Annotated[str, typer.Argument(metavar="PATH", help="The model to run.")],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to answer.")],
    tokens: Annotated[int, typer.Option("-n", "--tokens", help="Tokens to write at most.")] = 64,
    temperature: Temperature = 0.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    repetition_penalty: Penalty = 1.0,
    seed: Seed = 0,
    stop: Stop = None,
    threads: Threads = None,
    context: Context = None,
    overflow: Overflow = "error",
    kv_cache: KvCache = "fp16",
    lookup: Lookup = 0,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the prompt as it is, without the chat template.")] = False,
    as_json: Json = False,
) -> None:
    """Answer a prompt."""
    from bitwright.cli.answer import Clock, prompt_tokens, text_of
    from bitwright.engine import Engine, Sampling
    from bitwright.models import load

    model = load(path)
    tokenizer = model.tokenizer()
    words = tuple(stop or ())
    if "" in words:
        raise EngineError("a stop string must not be empty; leave --stop out to stop nowhere")
    sampling = Sampling(tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed, words, overflow, lookup)
    asked = prompt_tokens(tokenizer, prompt, raw)
    with progress(f"loading {path}"):
        engine = Engine.load(model, threads=threads, context=context, kv_cache=kv_cache)
    clock, answer = Clock(), []
    for piece in text_of(clock.watch(engine.generate(asked, sampling)), tokenizer, words):
        answer.append(piece)
        if not as_json:
            sys.stdout.write(piece)
            sys.stdout.flush()
    if as_json:
        counts = {"prompt_tokens": len(asked), "tokens": clock.tokens, "seconds": clock.last}
        print_json({"text": "".join(answer)} | counts | clock.speeds(len(asked)))
    else:
        sys.stdout.write("\n")
