"""The log-likelihood of each choice of a question: how likely a model is to write it after the context.

With x the context and c the tokens of a choice, log p(c | x) = sum_i log p(c_i | x, c_1 .. c_(i-1)). A choice's tokens are
those that context and choice together have beyond as many as the context has alone, a context's last blanks counted to the
choice: the rule of EleutherAI's lm-evaluation-harness (Gao et al., doi:10.5281/zenodo.12608602).

A context is read once and its cache rewound for each choice; the contexts of several questions, and then their first choices,
their second ones and so on, are read together. Every figure is the one that reading each choice alone would give.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bitwright.analysis.tasks.answers import Answering
from bitwright.analysis.tasks.lines import SHOWN
from bitwright.analysis.tasks.questions import Question
from bitwright.calibration.self_written import opening_of
from bitwright.engine import AT_ONCE, Engine
from bitwright.errors import NonFiniteError, TaskError
from bitwright.models.base import LanguageModel
from bitwright.models.tokenizer import Tokenizer


@dataclass(frozen=True)
class Asked:
    """A question in tokens. `choices` are all tokens of each choice, `lengths` their characters."""

    context: list[int]
    choices: list[list[int]]
    lengths: list[int]
    answer: int


def ask(answering: Answering, questions: Sequence[Question]) -> tuple[list[Asked], list[list[float]]]:
    """The questions in tokens, and for each the log p of its choices. Raises `TaskError` where there are none, and for one
    that the model's context does not hold.
    """
    if not questions:
        raise TaskError("there are no questions to ask; give at least one")
    asked = all_in_tokens(answering.model, questions)
    engine = answering.engine(max(len(one.context) + max(map(len, one.choices)) for one in asked))
    likelihoods = []
    for found in log_likelihoods(engine, asked):
        likelihoods.append(found)
        answering.told(len(likelihoods), len(asked))
    return asked, likelihoods


def all_in_tokens(model: LanguageModel, questions: Sequence[Question]) -> list[Asked]:
    """Raises what `in_tokens` raises."""
    tokenizer, limit = model.tokenizer(), model.architecture.context_length
    return [in_tokens(question, tokenizer, limit) for question in questions]


def right_in_tokens(model: LanguageModel, questions: Sequence[Question]) -> list[list[int]]:
    """Each question with its right answer. Raises what `in_tokens` raises."""
    return [one.context + one.choices[one.answer] for one in all_in_tokens(model, questions)]


def in_tokens(question: Question, tokenizer: Tokenizer, limit: int) -> Asked:
    """Raises `TaskError` where a choice has no tokens of its own, or where context and choice are more than `limit` tokens."""
    opening = opening_of(tokenizer)
    stem = question.context.rstrip()
    blanks = question.context[len(stem) :]
    context = opening + tokenizer.encode(stem, add_special=False)
    choices = []
    for continuation in question.continuations:
        whole = opening + tokenizer.encode(stem + blanks + continuation, add_special=False)
        choices.append(whole[len(context) :])
        if not context or not choices[-1]:
            raise TaskError(
                f"line {question.line}: the choice {continuation[:SHOWN]!r} adds no token to the context; write it differently"
            )
    if len(context) + max(map(len, choices)) > limit:
        raise TaskError(f"line {question.line} takes more than the {limit} tokens of the model's context; shorten it")
    return Asked(context, choices, [len(choice) for choice in question.choices], question.answer)


def log_likelihoods(engine: Engine, asked: Sequence[Asked], at_once: int = AT_ONCE) -> Iterator[list[float]]:
    """The log p of each choice, question by question. Raises `NonFiniteError`."""
    sequences = [engine.new_sequence() for _ in range(min(at_once, len(asked)))]
    for begin in range(0, len(asked), at_once):
        batch = list(zip(asked[begin : begin + at_once], sequences, strict=False))
        for _, sequence in batch:
            sequence.rewind(0)
        rows = engine.read_hidden([(sequence, one.context) for one, sequence in batch])
        last = np.cumsum([len(one.context) for one, _ in batch]) - 1
        found: list[list[float]] = [[] for _ in batch]
        for choice in range(max(len(one.choices) for one, _ in batch)):
            having = [place for place, (one, _) in enumerate(batch) if choice < len(one.choices)]
            tokens = [batch[place][0].choices[choice] for place in having]
            longer = [(batch[place], ids) for place, ids in zip(having, tokens, strict=True) if len(ids) > 1]
            for (one, sequence), _ in longer:
                sequence.rewind(len(one.context))
            read = engine.read_hidden([(sequence, ids[:-1]) for (_, sequence), ids in longer]) if longer else rows[:0]
            losses = _losses(engine, rows[last[having]], read, tokens)
            for place, loss in zip(having, losses, strict=True):
                found[place].append(-loss)
        yield from found


def _losses(
    engine: Engine, first: npt.NDArray[np.float32], read: npt.NDArray[np.float32], tokens: list[list[int]]
) -> list[float]:
    """-log p of each of `tokens`, from the hidden row before each one's first token and those after all but the last."""
    ends = np.cumsum([len(ids) - 1 for ids in tokens])
    parts = [
        np.concatenate([first[i : i + 1], read[end - len(ids) + 1 : end]])
        for i, (ids, end) in enumerate(zip(tokens, ends, strict=True))
    ]
    rows = np.concatenate(parts)
    nll = engine.compare(rows, engine, rows, np.concatenate([np.asarray(ids, np.int32) for ids in tokens])).nll.astype(np.float64)
    if not np.isfinite(nll).all():
        raise NonFiniteError("logits are NaN or infinite; check the model's weights")
    return [float(part.sum()) for part in np.split(nll, np.cumsum([len(ids) for ids in tokens])[:-1])]
