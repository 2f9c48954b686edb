"""What an evaluation measures at each position of a text, before anything is averaged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """All (tokens,) float64.

    `nll` and `nll_reference` are -log of the probability that each model gave the token that came, in nats, as `kl` is;
    `agree` is 1 where both hold the same token for the likeliest, `right` and `right_reference` where that is the one that
    came; `confidence_reference` is the probability of the reference's likeliest token.
    """

    nll: Doubles
    nll_reference: Doubles
    kl: Doubles
    confidence_reference: Doubles
    agree: Doubles
    right: Doubles
    right_reference: Doubles
