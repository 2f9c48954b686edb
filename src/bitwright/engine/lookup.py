"""Prompt lookup: guess the next tokens from what followed the same words before, and check the guess in one step.

Saxena 2023, "Prompt Lookup Decoding"; speculative sampling: Leviathan et al. 2022, arXiv:2211.17192. A guess is read
together with the token before it; the engine gives the same logits for tokens read together as one by one, and the sampler
draws from them in the same order. A guess holds if the sampler drew it. So answers are those without lookup, token for
token, whatever the temperature.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Items
from dataclasses import dataclass, field

LENGTHS = (4, 3, 2)  # tokens that must match, the longest tried first
SMOOTHING = 0.2  # weight of the newest measurement
FIRST_PAUSE, LONGEST_PAUSE = 16, 1024  # tokens written without guessing, after guesses that did not pay


@dataclass
class Index:
    """Where each run of 2 to 4 tokens last occurred."""

    tokens: list[int] = field(default_factory=list)
    _after: dict[tuple[int, ...], int] = field(default_factory=dict)  # run -> place of the token behind it

    def extend(self, tokens: Iterable[int]) -> None:
        """More tokens at the end."""
        for token in tokens:
            place = len(self.tokens)
            for length in LENGTHS:
                if place >= length:
                    self._after[tuple(self.tokens[-length:])] = place
            self.tokens.append(token)

    def guess(self, most: int) -> list[int]:
        """Up to `most` tokens that followed the last occurrence of the longest run that the text ends with."""
        for length in LENGTHS:
            place = self._after.get(tuple(self.tokens[-length:])) if len(self.tokens) >= length else None
            if place is not None:
                return self.tokens[place : place + max(0, most)]
        return []


class Guesser:
    """Guesses while that pays: what steps cost with and without a guess, and how many tokens came out of them.

    Seconds are measured, so that the answer fits the machine, the model and the length of the context at hand; they decide
    when to guess, never what is written.
    """

    def __init__(self, most: int) -> None:
        """`most` tokens in one guess; 0 never guesses."""
        self.most = most
        self.index = Index()
        self.plain: float | None = None  # seconds of a step without a guess
        self.balance = 0.0  # seconds that a guess saves
        self.pause = FIRST_PAUSE
        self.waiting = 0  # steps before the next guess

    def guess(self, tokens: Items[int], most: int) -> list[int]:
        """What may come after `tokens`; nothing while guesses rest, or until the cost of a plain step is known."""
        if self.most == 0:
            return []
        self.index.extend(tokens[len(self.index.tokens) :])
        self.waiting = max(0, self.waiting - 1)
        if self.plain is None or self.waiting:
            return []
        return self.index.guess(min(self.most, most))

    def book(self, seconds: float, guessed: int, drawn: int) -> None:
        """A step took so many seconds and gave `drawn` tokens. Losses make guesses rest, longer each time."""
        if guessed == 0 or self.plain is None:
            self.plain = seconds if self.plain is None else self.plain + SMOOTHING * (seconds - self.plain)
            return
        self.balance += SMOOTHING * (drawn * self.plain - seconds - self.balance)
        if self.balance >= 0:
            self.pause = FIRST_PAUSE
        else:
            self.waiting, self.pause, self.balance = self.pause, min(2 * self.pause, LONGEST_PAUSE), 0.0
