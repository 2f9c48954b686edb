"""`bitwright run`: one prompt, one answer, written out as it is made."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from bitwright.cli.answer import Clock, read_prompt, text_of
from bitwright.cli.command_line import Argument, Option
from bitwright.cli.console import Json, Strict, Threads, note, print_json, progress
from bitwright.errors import EngineError

if TYPE_CHECKING:
    from bitwright.engine import Switch

Context = Annotated[int | None, Option("--context", help="Tokens that prompt and answer may take (default: the model's).")]
Temperature = Annotated[float, Option("--temperature", help="0 always takes the likeliest token; higher is more varied.")]
TopK = Annotated[int, Option("--top-k", help="Choose among the K likeliest tokens (0: all).")]
TopP = Annotated[float, Option("--top-p", help="Choose among the likeliest tokens that together have this probability.")]
MinP = Annotated[float, Option("--min-p", help="Drop tokens below this share of the likeliest one's probability.")]
Penalty = Annotated[float, Option("--repetition-penalty", help="Above 1 disfavours tokens that occurred already.")]
Seed = Annotated[int, Option("--seed", help="The same seed gives the same answer.")]
Stop = Annotated[list[str] | None, Option("--stop", help="End the answer before this text; may be given several times.")]
Overflow = Annotated[str, Option("--overflow", help="When the context is full: error, or slide (forget the oldest tokens).")]

KvCache = Annotated[
    str | None, Option("--kv-cache", help="How keys and values are kept: fp16, fp32, int8 or int4. [fp16, or as the recipe says]")
]
Lookup = Annotated[int, Option("--lookup", help="Guess up to N tokens at a step from the text so far (0: none).")]


def run(  # noqa: PLR0913 - one parameter an option
    path: Annotated[str, Argument("PATH", help="The model to run.")],
    prompt: Annotated[str, Argument("PROMPT", help="What to answer.")],
    tokens: Annotated[int, Option("-n", "--tokens", help="Tokens to write at most.")] = 64,
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
    kv_cache: KvCache = None,
    lookup: Lookup = 0,
    strict: Strict = False,
    raw: Annotated[bool, Option("--raw", help="Continue the prompt as it is, without the chat template.")] = False,
    as_json: Json = False,
) -> None:
    """Answer a prompt."""
    from bitwright.models import load

    words = tuple(stop or ())
    if "" in words:
        raise EngineError("a stop string must not be empty; leave --stop out to stop nowhere")
    model = load(path)
    from bitwright.engine import Engine, Sampling

    sampling = Sampling(tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed, words, overflow, lookup)
    with progress(f"loading {path}"):
        engine = Engine.load(model, threads=threads, context=context, kv_cache=kv_cache, strict=strict)
    tokenizer, asked = read_prompt(model, prompt, raw)  # while the weights are repacked
    clock, answer = Clock(), []
    for piece in text_of(clock.watch(engine.generate(asked, sampling)), tokenizer, words):
        answer.append(piece)
        if not as_json:
            sys.stdout.write(piece)
            sys.stdout.flush()
    if as_json:
        counts = {"prompt_tokens": len(asked), "tokens": clock.tokens, "seconds": clock.last}
        switches = {"switches": [str(switch) for switch in engine.switches]} if engine.switches else {}
        print_json({"text": "".join(answer)} | counts | clock.speeds(len(asked)) | switches)
    else:
        sys.stdout.write("\n")
    note_switches(engine.switches)


def note_switches(switches: Sequence[Switch]) -> None:
    """A line on stderr for each setting that the engine changed while it ran."""
    for switch in switches:
        note(f"switched {switch}")
