"""`bitwright chat`: a conversation, typed or piped in line by line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from bitwright.cli.command_line import Argument, Option
from bitwright.cli.console import Strict, Threads, note, progress
from bitwright.cli.run import Context, KvCache, Lookup, MinP, Overflow, Penalty, Seed, Temperature, TopK, TopP, note_switches

if TYPE_CHECKING:
    from bitwright.engine import Engine, Sampling
    from bitwright.models.tokenizer import Tokenizer

HELP = "/reset forgets the conversation, /exit or end of input (Ctrl-D) leaves, Ctrl-C stops an answer"


def chat(  # noqa: PLR0913 - one parameter an option
    path: Annotated[str, Argument("PATH", help="The model to talk with.")],
    tokens: Annotated[int, Option("-n", "--tokens", help="Tokens of an answer at most.")] = 512,
    system: Annotated[str | None, Option("--system", help="What the model is told before the conversation.")] = None,
    temperature: Temperature = 0.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    repetition_penalty: Penalty = 1.0,
    seed: Seed = 0,
    threads: Threads = None,
    context: Context = None,
    overflow: Overflow = "slide",
    kv_cache: KvCache = None,
    lookup: Lookup = 0,
    strict: Strict = False,
) -> None:
    """Talk with a model.

    Reads one message a line from stdin and answers each on stdout.
    """
    from bitwright.engine import Engine, Sampling
    from bitwright.models import load

    model = load(path)
    tokenizer = model.tokenizer()
    opening = [{"role": "system", "content": system}] if system else []
    tokenizer.chat([*opening, {"role": "user", "content": ""}])  # a model without a template is refused before it is loaded
    sampling = Sampling(tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed, (), overflow, lookup)
    with progress(f"loading {path}"):
        engine = Engine.load(model, threads=threads, context=context, kv_cache=kv_cache, strict=strict)
    messages = list(opening)
    for line in typed_lines():
        if line == "/reset":
            messages = list(opening)
            continue
        messages.append({"role": "user", "content": line})
        before = len(engine.switches)
        messages.append({"role": "assistant", "content": reply(engine, tokenizer, messages, sampling)})
        note_switches(engine.switches[before:])


def reply(engine: Engine, tokenizer: Tokenizer, messages: list[dict[str, str]], sampling: Sampling) -> str:
    """Write the next answer to stdout as it is made, and return it. Ctrl-C ends the answer, not the conversation."""
    from bitwright.cli.answer import text_of

    prompt = tokenizer.encode(tokenizer.chat(messages), add_special=False)
    answer = ""
    try:
        for piece in text_of(engine.generate(prompt, sampling), tokenizer):
            sys.stdout.write(piece)
            sys.stdout.flush()
            answer += piece
    except KeyboardInterrupt:
        note("")
    sys.stdout.write("\n")
    sys.stdout.flush()
    return answer


def typed_lines() -> Iterator[str]:
    """Non-empty lines of stdin up to /exit; a terminal is shown a prompt, on stderr."""
    terminal = sys.stdin.isatty()
    if terminal:
        note(HELP)
    while True:
        if terminal:
            sys.stderr.write("> ")
            sys.stderr.flush()
        line = sys.stdin.readline()
        if not line or line.strip() == "/exit":
            return
        if line.strip():
            yield line.strip()
