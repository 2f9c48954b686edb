"""Does guessing pay? Decoding with prompt lookup and without it, on texts that repeat their prompt and one that does not.

    python benchmarks/speculation.py [--rounds 15] [--lookup 7]

Greedy answers of the twin of SmolLM2, the prompt read beforehand; both ways by turns, medians of tokens per second, and the
median of the rounds' ratios. Both write the same tokens, which is checked. Where an answer repeats its prompt (an edited
text), guesses must make it faster; where guesses do not pay they rest, and what they cost until then must stay small.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bitwright.cli.answer import prompt_tokens
from bitwright.engine import Engine, Sampling
from bitwright.models import load
from material import TEXT, artifact_of_twin
from results import circumstances, command_line, median_ratio, table, verdict, write
from worker import bitwright_worker

SCHEME = "int8-channel"
WRITTEN = 128  # tokens
STORIES = TEXT.with_name("tinystories_excerpt.txt")
EDIT, ARTICLE, QUESTION = "a text to correct", "an article to continue", "a question"
PAYS_BAR, COSTS_BAR = 1.0, 0.95  # speed over that without guesses


def prompts() -> dict[str, tuple[str, bool]]:
    """Name -> text, and whether it is continued as it is."""
    for path in (TEXT, STORIES):
        if not path.exists():
            raise SystemExit(f"{path} is absent; put the text there")
    story, article = (path.read_text("utf-8") for path in (STORIES, TEXT))
    return {
        EDIT: (f"Correct the spelling mistakes in this text and print it again:\n\n{story[:700]}", False),
        ARTICLE: (article[:1200], True),
        QUESTION: ("Why is the sky blue?", False),
    }


def answer(engine: Engine, prompt: list[int], lookup: int) -> tuple[float, list[int]]:
    """Tokens per second from the first one on, and the tokens."""
    tokens, begin = list[int](), 0.0
    for token in engine.generate(prompt, Sampling(WRITTEN, lookup=lookup)):
        begin = begin or time.perf_counter()
        tokens.append(token)
    return (len(tokens) - 1) / (time.perf_counter() - begin), tokens


def row(engine: Engine, name: str, prompt: list[int], lookup: int, rounds: int) -> dict[str, Any]:
    """Both ways by turns, after an answer that reads the prompt and is not timed."""
    speeds: dict[int, list[float]] = {0: [], lookup: []}
    written = answer(engine, prompt, 0)[1]
    for turn in range(rounds):
        for guesses in sorted(speeds, reverse=turn % 2 == 1):
            speed, tokens = answer(engine, prompt, guesses)
            speeds[guesses].append(speed)
            if tokens != written:
                raise SystemExit(f"{name}: the answer with {guesses} guesses differs from the one without")
    plain, guessed = speeds.values()
    ratio = median_ratio(guessed, plain)
    figures = {"plain": statistics.median(plain), "lookup": statistics.median(guessed), "ratio": ratio}
    return {"prompt": name, "prompt_tokens": len(prompt), "written": len(written)} | figures


def main() -> None:
    parser = argparse.ArgumentParser(description="Decoding with prompt lookup and without it.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--lookup", type=int, default=7, help="tokens of a guess: one more are read together")
    options = parser.parse_args()

    asked = prompts()
    data: dict[str, Any] = {"circumstances": circumstances(), "command": command_line(), "lookup": options.lookup}
    with tempfile.TemporaryDirectory() as directory:
        with bitwright_worker() as worker:
            model = load(artifact_of_twin(SCHEME, Path(directory), worker))
        engine, tokenizer = Engine.load(model), model.tokenizer()
        tokens = {name: prompt_tokens(tokenizer, text, raw) for name, (text, raw) in asked.items()}
        rows = [row(engine, name, prompt, options.lookup, options.rounds) for name, prompt in tokens.items()]
    report(data | {"threads": engine.threads, "rows": rows})


def report(data: dict[str, Any]) -> None:
    header = ("prompt", "its tokens", "tokens written", "tokens/s", f"with --lookup {data['lookup']}", "ratio")
    rows = [tuple(each.values()) for each in data["rows"]]
    bars = [
        verdict(
            f"guessing over not guessing, {each['prompt']}",
            each["ratio"],
            PAYS_BAR if each["prompt"] == EDIT else COSTS_BAR,
            True,
        )
        for each in data["rows"]
    ]
    said = f"{SCHEME}, {data['threads']} threads, greedy; answers with guesses are the same, token for token.\n"
    write("speculation", "Prompt lookup on the twin of SmolLM2-135M", data, [said, table(header, rows), *bars])


if __name__ == "__main__":
    main()
