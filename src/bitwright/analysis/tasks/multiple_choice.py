"""Multiple choice by log-likelihood: a model's answer is the choice that it would most likely have written.

With x the context and c a choice (likelihoods.py), three ways to choose:

    accuracy              the largest log p(c | x)
    accuracy_normalized   the largest log p(c | x) / characters of the choice, so that long choices are not at a disadvantage
    accuracy_per_token    the largest log p(c | x) / tokens of the choice

The first two are `acc` and `acc_norm` of EleutherAI's lm-evaluation-harness (Gao et al., doi:10.5281/zenodo.12608602). Of equal
choices the first one is taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bitwright.analysis.tasks.answers import Answering, Answers
from bitwright.analysis.tasks.figures import Statistic, share_right
from bitwright.analysis.tasks.likelihoods import Asked, ask
from bitwright.analysis.tasks.questions import Question

NAMES = {"": "accuracy", "_normalized": "accuracy, per character", "_per_token": "accuracy, per token"}


def multiple_choice(answering: Answering, questions: Sequence[Question]) -> Answers:
    """Accuracies of (questions,) answers, chosen in each way. Raises what `ask` raises."""
    asked, likelihoods = ask(answering, questions)
    return Answers("accuracy", {way: _accuracy(way, asked, likelihoods) for way in NAMES})


def _accuracy(way: str, asked: Sequence[Asked], likelihoods: Sequence[list[float]]) -> Statistic:
    right = []
    for one, found in zip(asked, likelihoods, strict=True):
        lengths = {"": [1], "_normalized": one.lengths, "_per_token": list(map(len, one.choices))}[way]
        right.append(int(np.argmax(np.array(found) / np.array(lengths))) == one.answer)
    return share_right(NAMES[way], np.array(right))
