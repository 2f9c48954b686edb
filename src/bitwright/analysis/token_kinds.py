"""On which kinds of token the loss lands: the reference's own, and what quantization adds to it.

Each token that was scored belongs to one kind of each group:

    text        word start, word rest (a word goes on across tokens), number, punctuation, space (blanks, line ends), other
                (parts of a character): by its first character that is no blank
    context     repeats: it followed the token before it earlier in the window, so that copying finds it; new: it did not
    frequency   rare: it occurs once in the scored text; frequent: more often
    reference   sure: the reference's likeliest token has a probability above 0.9; unsure: below 0.5; between

A mean over a kind is a ratio of two sums over the units that the bootstrap draws, so its interval comes from the same draws
as all others (analysis/significance.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bitwright.analysis.scored_text import Tokens
from bitwright.analysis.scores import Doubles, Scores
from bitwright.analysis.significance import Resampling, percentile_interval, resample, units_of_windows

Labels = npt.NDArray[np.str_]  # (tokens,), the kind of each scored token
Interval = tuple[float, float]

SURE, UNSURE = 0.9, 0.5
LEAST_UNITS = 5  # of the bootstrap that a kind must occur in to be given an interval


class Decoder(Protocol):
    """The part of a tokenizer that is needed here."""

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str: ...


@dataclass(frozen=True)
class Kind:
    """The figures of one kind, losses and KL in nats per token, each with its 95 % interval; None where it is too rare for one.

    `share` and `share_of_kl` are of all scored tokens and of their KL together: a kind that has more of the KL than of the
    tokens is one that quantization hurts.
    """

    group: str
    kind: str
    tokens: int
    share: float
    share_of_kl: float
    kl_mean: float
    kl_mean_interval: Interval | None
    loss_reference: float
    loss_reference_interval: Interval | None
    loss_added: float
    loss_added_interval: Interval | None


def by_kind(scores: Scores, windows: Sequence[Tokens], tokenizer: Decoder) -> tuple[Kind, ...]:
    """The kinds that occur, group by group, the commonest first; `scores` are of all tokens of `windows` but each one's first."""
    draws = resample(units_of_windows([len(window) - 1 for window in windows]))
    groups = {
        "text": _by_text(windows, tokenizer),
        "context": _by_context(windows),
        "frequency": _by_frequency(windows),
        "reference": _by_confidence(scores),
    }
    return tuple(kind for group, labels in groups.items() for kind in _kinds(group, labels, scores, draws))


def _kinds(group: str, labels: Labels, scores: Scores, draws: Resampling) -> Iterator[Kind]:
    names, counts = np.unique(labels, return_counts=True)
    whole = float(scores.kl.sum())
    for position in np.argsort(-counts, kind="stable"):
        mask = labels == names[position]
        yield Kind(
            group,
            str(names[position]),
            int(counts[position]),
            float(mask.mean()),
            float(scores.kl[mask].sum()) / whole if whole > 0 else 0.0,
            *_mean(scores.kl, mask, draws),
            *_mean(scores.nll_reference, mask, draws),
            *_mean(scores.nll - scores.nll_reference, mask, draws),
        )


def _mean(values: Doubles, mask: npt.NDArray[np.bool_], draws: Resampling) -> tuple[float, Interval | None]:
    """Over the tokens of `mask`, and its interval."""
    enough = np.unique(draws.unit_of_token[mask]).size >= LEAST_UNITS
    return float(values[mask].mean()), percentile_interval(draws.means_where(values, mask)) if enough else None


def _by_text(windows: Sequence[Tokens], tokenizer: Decoder) -> Labels:
    texts = _texts(np.unique(np.concatenate(windows)).tolist(), tokenizer)
    return np.array(
        [
            kind_of_text(texts[token], texts[before])
            for window in windows
            for before, token in zip(window[:-1].tolist(), window[1:].tolist(), strict=True)
        ]
    )


def _texts(ids: Sequence[int], tokenizer: Decoder) -> dict[int, str]:
    """What each token adds to a text, blanks included: many tokenizers drop that of a first word, so another comes first."""
    anchor = ids[0]
    before = len(tokenizer.decode([anchor], skip_special=False))
    return {token: tokenizer.decode([anchor, token], skip_special=False)[before:] for token in ids}


def kind_of_text(text: str, before: str) -> str:
    """The kind of a token by its text, and by that of the token before it."""
    first = text.lstrip()[:1]
    if not first:
        return "space" if text else "other"
    if first == "\N{REPLACEMENT CHARACTER}":
        return "other"
    if first.isnumeric():
        return "number"
    if not first.isalpha():
        return "punctuation"
    return "word rest" if text[0] == first and before[-1:].isalpha() else "word start"


def _by_context(windows: Sequence[Tokens]) -> Labels:
    labels = []
    for window in windows:
        seen: set[tuple[int, int]] = set()
        for pair in zip(window[:-1].tolist(), window[1:].tolist(), strict=True):
            labels.append("repeats" if pair in seen else "new")
            seen.add(pair)
    return np.array(labels)


def _by_frequency(windows: Sequence[Tokens]) -> Labels:
    _, place, counts = np.unique(np.concatenate([window[1:] for window in windows]), return_inverse=True, return_counts=True)
    return np.where(counts[place] == 1, "rare", "frequent")


def _by_confidence(scores: Scores) -> Labels:
    confidence = scores.confidence_reference
    return np.where(confidence > SURE, "sure", np.where(confidence < UNSURE, "unsure", "between"))
