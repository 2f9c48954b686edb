"""Answers that a model writes itself, judged by their words against a reference: the word error rate.

    {"prompt": "French: Le chat dort. English:", "reference": "The cat sleeps."}

A prompt is continued as it stands. The answer is greedy, and ends before its first newline, at the model's end of text, or after
NEW_TOKENS tokens, so a reference is one line of no more tokens. Words are what blanks separate, with case and punctuation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bitwright.analysis.tasks.answers import Answering, Answers
from bitwright.analysis.tasks.figures import word_errors
from bitwright.analysis.tasks.lines import Line
from bitwright.calibration.self_written import opening_of
from bitwright.engine import Engine, Sampling
from bitwright.errors import TaskError
from bitwright.models.base import LanguageModel
from bitwright.models.tokenizer import Tokenizer

NEW_TOKENS = 64


@dataclass(frozen=True)
class Prompt:
    """`line` says where it stands in its file."""

    prompt: str
    reference: str
    line: int


def prompts_of(lines: Sequence[Line]) -> list[Prompt]:
    """Raises `TaskError` that names the line."""
    return [_prompt(line) for line in lines]


def _prompt(line: Line) -> Prompt:
    prompt, reference = line.text("prompt"), line.text("reference").strip()
    if "\n" in reference:
        raise line.fault("reference must be one line, for an answer ends at its first newline; split it")
    return Prompt(prompt, reference, line.number)


def transcription(answering: Answering, prompts: Sequence[Prompt]) -> Answers:
    """Word error rate of greedy answers. Raises what `prompts_in_tokens` raises."""
    tokenizer, asked = answering.model.tokenizer(), prompts_in_tokens(answering.model, prompts)
    engine = answering.engine(max(map(len, asked)) + NEW_TOKENS)
    written = []
    for tokens in asked:
        written.append(answer_of(engine, tokenizer, tokens))
        answering.told(len(written), len(asked))
    return Answers("word_error_rate", {"": word_errors([prompt.reference for prompt in prompts], written)})


def prompts_in_tokens(model: LanguageModel, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Raises `TaskError` for a prompt that leaves an answer no room in the model's context, or too long a reference."""
    tokenizer, limit = model.tokenizer(), model.architecture.context_length
    return [_in_tokens(prompt, tokenizer, limit) for prompt in prompts]


def references_in_tokens(model: LanguageModel, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Each prompt with its reference after it. Raises what `prompts_in_tokens` raises."""
    references = [model.tokenizer().encode(f" {prompt.reference}", add_special=False) for prompt in prompts]
    return [asked + written for asked, written in zip(prompts_in_tokens(model, prompts), references, strict=True)]


def answer_of(engine: Engine, tokenizer: Tokenizer, prompt: Sequence[int]) -> str:
    """What the model writes after the tokens of a prompt, up to its first newline. Raises `NonFiniteError`."""
    stream, text = tokenizer.stream(), ""
    for token in engine.generate(prompt, Sampling(max_tokens=NEW_TOKENS)):
        text += stream.push(token)
        if "\n" in text:
            break
    return (text + stream.finish()).partition("\n")[0]


def _in_tokens(prompt: Prompt, tokenizer: Tokenizer, limit: int) -> list[int]:
    tokens = opening_of(tokenizer) + tokenizer.encode(prompt.prompt, add_special=False)
    if len(tokenizer.encode(f" {prompt.reference}", add_special=False)) > NEW_TOKENS:
        raise TaskError(f"line {prompt.line}: the reference takes more than the {NEW_TOKENS} tokens of an answer; shorten it")
    if len(tokens) + NEW_TOKENS > limit:
        said = f"{NEW_TOKENS} tokens of an answer take more than the {limit} of the model's context"
        raise TaskError(f"line {prompt.line}: the prompt and {said}; shorten it")
    return tokens
