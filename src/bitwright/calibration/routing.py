"""Which tokens go through which expert of a mixture, and with what share each comes back (models/architecture.py).

    p = softmax(h W_router^T),   the experts_per_token largest of each token,   [over their sum]

The router stays in float32 whatever the dtype of products is: its choice is a comparison, which rounding could turn.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from bitwright.models.architecture import Architecture


class Route(NamedTuple):
    """Of one expert: the numbers of the tokens that are routed to it, ascending, and its share of what each adds.

    `tokens` (routed,) int64, `shares` (routed,) float32
    """

    tokens: Tensor
    shares: Tensor


def routes(h: Tensor, router: Tensor, architecture: Architecture) -> list[Route]:
    """H (tokens, hidden_size), router (experts, hidden_size) -> each expert's route."""
    likely = torch.softmax(functional.linear(h.float(), router.float()), -1)
    shares, chosen = torch.topk(likely, architecture.experts_per_token, -1)
    if architecture.normalized_routing:
        shares = shares / shares.sum(-1, keepdim=True)
    found = []
    for expert in range(architecture.experts):
        tokens, rank = torch.nonzero(chosen == expert, as_tuple=True)
        found.append(Route(tokens, shares[tokens, rank]))
    return found
