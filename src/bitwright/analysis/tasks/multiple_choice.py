"""Multiple choice by log-likelihood: a model's answer is the choice that it would most likely have written.

With x the context and c the tokens of a choice, log p(c | x) = sum_i log p(c_i | x, c_1 .. c_(i-1)). Three ways to choose:

    accuracy              the largest log p(c | x)
    accuracy_normalized   the largest log p(c | x) / characters of the choice, so that long choices are not at a disadvantage
    accuracy_per_token    the largest log p(c | x) / tokens of the choice

The first two are `acc` and `acc_norm` of EleutherAI's lm-evaluation-harness (Gao et al., doi:10.5281/zenodo.12608602), whose
rule for a choice's tokens holds, too: those that context and choice together have beyond as many as the context has alone,
a context's last blanks counted to the choice. Of equal choices the first one is taken.

A context is read once and its cache rewound for each choice; the contexts of several questions, and then their first choices,
their second ones and so on, are read together. Every figure is the one that reading each choice alone would give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.analysis.scored_text import Encoder
from bitwright.analysis.tasks.figures import mean_figure
from bitwright.analysis.tasks.paired import mcnemar, paired_drop
from bitwright.analysis.tasks.questions import Question, read_questions
from bitwright.engine import AT_ONCE, Engine
from bitwright.errors import NonFiniteError, TaskError
from bitwright.models import load
from bitwright.models.base import LanguageModel
from bitwright.runtime import activations_of

Progress = Callable[[int, int], None]
Mask = npt.NDArray[np.bool_]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Asked:
    """A question in tokens. `choices` are all tokens of each choice, `lengths` their characters."""

    context: list[int]
    choices: list[list[int]]
    lengths: list[int]
    answer: int


@dataclass(frozen=True)
class TaskResult:
    """Accuracies with their 95 % intervals. `right` and its like: (items,), whether each was answered right, chosen that way."""

    accuracy: float
    accuracy_interval: Interval
    accuracy_normalized: float
    accuracy_normalized_interval: Interval
    accuracy_per_token: float
    accuracy_per_token_interval: Interval
    items: int
    right: Mask
    right_normalized: Mask
    right_per_token: Mask


@dataclass(frozen=True)
class ChoiceComparison:
    """A model's result, and its reference's where there is one."""

    model: TaskResult
    reference: TaskResult | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, by the public keys. Drops are the reference's accuracy less the model's; `_p` is McNemar's exact test."""
        result: dict[str, Any] = {"task_items": self.model.items}
        for way in ("", "_normalized", "_per_token"):
            name = f"task_accuracy{way}"
            result |= {name: getattr(self.model, f"accuracy{way}")}
            result |= {f"{name}_interval": list(getattr(self.model, f"accuracy{way}_interval"))}
            if self.reference is None:
                names = (
                    f"{name}_reference",
                    f"{name}_reference_interval",
                    *(f"task_drop{way}{end}" for end in ("", "_interval", "_p")),
                )
                result |= dict.fromkeys(names)
                continue
            right, expected = getattr(self.model, f"right{way}"), getattr(self.reference, f"right{way}")
            drop = paired_drop(right, expected)
            assert drop.interval is not None  # there are items
            result |= {
                f"{name}_reference": getattr(self.reference, f"accuracy{way}"),
                f"{name}_reference_interval": list(getattr(self.reference, f"accuracy{way}_interval")),
                f"task_drop{way}": drop.drop,
                f"task_drop{way}_interval": list(drop.interval),
                f"task_drop{way}_p": mcnemar(right, expected),
            }
        return result


def choice_task(path: str | Path, reference: LanguageModel) -> Callable[[LanguageModel], Mask]:
    """A measure for plans: whether each question of a file was answered right, by models as they run, `reference` in 32 bits.

    Raises `TaskError` at once for a file that holds no questions.
    """
    questions, original = read_questions(path), reference.fingerprint()

    def right(model: LanguageModel) -> Mask:
        in_full = model.fingerprint() == original
        return multiple_choice(model, questions, "fp32" if in_full else "", "fp32" if in_full else "fp16").right

    return right


def compare_choices(
    model: LanguageModel | str | Path,
    reference: LanguageModel | str | Path | None,
    path: str | Path,
    activations: str = "",
    progress: Progress | None = None,
) -> ChoiceComparison:
    """Both models on a file of questions, one after the other; the reference with 32-bit activations and KV cache."""
    questions, rounds = read_questions(path), 1 if reference is None else 2

    def told(before: int) -> Progress:
        return lambda done, total: progress(before * total + done, rounds * total) if progress is not None else None

    found = multiple_choice(model, questions, activations, progress=told(0))
    if reference is None:
        return ChoiceComparison(found, None)
    return ChoiceComparison(found, multiple_choice(reference, questions, "fp32", "fp32", told(1)))


def multiple_choice(
    model: LanguageModel | str | Path,
    questions: str | Path | Sequence[Question],
    activations: str = "",
    kv_cache: str = "fp16",
    progress: Progress | None = None,
) -> TaskResult:
    """Ask `questions`, or those of a file. Raises `TaskError`, also for a question that the model's context does not hold."""
    if not questions:
        raise TaskError("there are no questions to ask; give at least one")
    loaded = load(model) if isinstance(model, str | Path) else model
    asked_for = read_questions(questions) if isinstance(questions, str | Path) else list(questions)
    tokenizer, limit = loaded.tokenizer(), loaded.architecture.context_length
    asked = [in_tokens(question, tokenizer, limit) for question in asked_for]
    longest = max(len(one.context) + max(map(len, one.choices)) for one in asked)
    engine = Engine.load(loaded, context=longest, activations=activations or activations_of(loaded), kv_cache=kv_cache)
    likelihoods = []
    for found in log_likelihoods(engine, asked):
        likelihoods.append(found)
        if progress is not None:
            progress(len(likelihoods), len(asked))
    return _result(asked, likelihoods)


def in_tokens(question: Question, tokenizer: Encoder, limit: int) -> Asked:
    """Raises `TaskError` where a choice has no tokens of its own, or where context and choice are more than `limit` tokens."""
    opening = [token for token in tokenizer.encode("", add_special=True)[:1] if token == tokenizer.bos_id]
    stem = question.context.rstrip()
    blanks = question.context[len(stem) :]
    context = opening + tokenizer.encode(stem, add_special=False)
    choices = []
    for continuation in question.continuations:
        whole = opening + tokenizer.encode(stem + blanks + continuation, add_special=False)
        choices.append(whole[len(context) :])
        if not context or not choices[-1]:
            raise TaskError(
                f"line {question.line}: the choice {continuation[:40]!r} adds no token to the context; write it differently"
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


def _result(asked: Sequence[Asked], likelihoods: Sequence[list[float]]) -> TaskResult:
    answers = np.array([one.answer for one in asked])
    figures: dict[str, Any] = {}
    for way in ("", "_normalized", "_per_token"):
        chosen = []
        for one, found in zip(asked, likelihoods, strict=True):
            lengths = {"": [1], "_normalized": one.lengths, "_per_token": list(map(len, one.choices))}[way]
            chosen.append(int(np.argmax(np.array(found) / np.array(lengths))))
        right = np.array(chosen) == answers
        figure = mean_figure(right)
        figures |= {f"accuracy{way}": figure.value, f"accuracy{way}_interval": figure.interval, f"right{way}": right}
    return TaskResult(**figures, items=len(asked))
