"""Kinds of token, each by its rule, and their figures against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.fakes import Letters
from bitwright.analysis.scores import Scores
from bitwright.analysis.token_kinds import Kind, by_kind, kind_of_text

WORDS = ["a", " the", " model", "ing", " 12", "3", ",", "\n", "\N{REPLACEMENT CHARACTER}", " (", "", "\n\nSo", "\u4e2d"]


class Words:
    """Each token is a whole word of a list; the blank of a text's first word is dropped, as many tokenizers do."""

    def decode(self, ids: list[int], skip_special: bool = True) -> str:
        return "".join(WORDS[token] for token in ids).removeprefix(" ")


def scores_of(count: int, seed: int = 1) -> Scores:
    random = np.random.default_rng(seed)
    nll, nll_reference, kl, confidence = random.gamma(2, 1, (4, count))
    ones = np.ones(count)
    return Scores(nll, nll_reference, kl, np.minimum(confidence / 3, 1), ones, ones, ones)


def labels(found: tuple[Kind, ...], group: str) -> dict[str, int]:
    return {kind.kind: kind.tokens for kind in found if kind.group == group}


@pytest.mark.parametrize(
    ("text", "before", "kind"),
    [
        (" the", "x", "word start"),
        ("the", "x", "word rest"),
        ("the", " ", "word start"),
        ("the", "1", "word start"),
        ("the", "", "word start"),
        (" 12", "x", "number"),
        ("3", "2", "number"),
        (",", "x", "punctuation"),
        (" (", "x", "punctuation"),
        ("'s", "x", "punctuation"),
        ("\n\n", ".", "space"),
        ("\nSo", "x", "word start"),
        ("\N{REPLACEMENT CHARACTER}", "x", "other"),
        ("", "x", "other"),
        ("\u4e2d", "x", "word rest"),
    ],
)
def test_kind_of_text(text: str, before: str, kind: str) -> None:
    assert kind_of_text(text, before) == kind


def test_blanks_count_though_the_tokenizer_drops_that_of_a_first_word() -> None:
    windows = [np.array([1, 2, 3, 4, 5, 6, 7], np.int32)]
    expected = {"word start": 1, "word rest": 1, "number": 2, "punctuation": 1, "space": 1}
    found = by_kind(scores_of(6), windows, Words())
    assert labels(found, "text") == expected
    assert next(kind for kind in found if kind.kind == "space").kl_mean_interval is None  # one token tells nothing of others


def test_what_repeats_and_what_is_rare() -> None:
    windows = [np.array([1, 2, 1, 2, 5, 2], np.int32), np.array([1, 2, 3], np.int32)]  # nothing repeats across windows
    found = by_kind(scores_of(7), windows, Words())
    assert labels(found, "context") == {"new": 6, "repeats": 1}
    assert labels(found, "frequency") == {"frequent": 4, "rare": 3}  # 1, 5 and 3 are scored once


def test_every_figure_is_its_definition() -> None:
    windows = [np.array(Letters().encode(text), np.int32) for text in ("abc 12, abc 13\n", "the cat, the cat") * 15]
    scores = scores_of(sum(len(window) - 1 for window in windows))
    found = by_kind(scores, windows, Letters())
    sure, unsure = scores.confidence_reference > 0.9, scores.confidence_reference < 0.5
    for kind, mask in {"sure": sure, "unsure": unsure, "between": ~sure & ~unsure}.items():
        row = next(row for row in found if row.kind == kind)
        assert row.tokens == mask.sum() and row.share == pytest.approx(mask.mean())
        assert row.kl_mean == pytest.approx(scores.kl[mask].mean())
        assert row.share_of_kl == pytest.approx(scores.kl[mask].sum() / scores.kl.sum())
        assert row.loss_reference == pytest.approx(scores.nll_reference[mask].mean())
        assert row.loss_added == pytest.approx((scores.nll - scores.nll_reference)[mask].mean())
        for name in ("kl_mean", "loss_reference", "loss_added"):
            low, high = getattr(row, f"{name}_interval")
            assert low < getattr(row, name) < high
    for group in ("text", "context", "frequency", "reference"):
        rows = [row for row in found if row.group == group]
        assert sum(row.tokens for row in rows) == len(scores.kl)
        assert sum(row.share_of_kl for row in rows) == pytest.approx(1)
        assert [row.tokens for row in rows] == sorted((row.tokens for row in rows), reverse=True)


def test_an_interval_of_a_kind_is_that_of_its_tokens_alone() -> None:
    """With one unit a token the ratio's bootstrap is the mean's: as wide as the standard error says."""
    windows = [np.array([1, 2 + (i % 2)], np.int32) for i in range(400)]
    scores = scores_of(400)
    row = next(row for row in by_kind(scores, windows, Words()) if row.kind == "word rest")
    values = scores.kl[1::2]
    low, high = row.kl_mean_interval
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / np.sqrt(len(values)), rel=0.15)
