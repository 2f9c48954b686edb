"""The walk's last two stages where a layer is a mixture of experts: each expert is rounded by the tokens routed to it.

    h = norm(x);  for each expert:   h of its tokens -> moments -> round gate, up   -> m = activation(gate(h)) * up(h)
                                     m               -> moments -> round down       -> x += share * down(m)

Tokens go where the quantized model's router sends them. Where drift is asked for, it is that between both models' inputs at
these tokens; the unquantized stream itself goes on by its own routes. An expert that fewer than FEWEST_TOKENS reached has
moments that say nothing of its other tokens, so none are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bitwright.calibration.cores import CHUNK_TOKENS, Each
from bitwright.calibration.decoder import Decoder, Weights
from bitwright.calibration.routing import Route, routes
from bitwright.models.architecture import of_expert

FEWEST_TOKENS = 32

Round = Callable[[tuple[str, ...], Sequence[Tensor]], Sequence[Weights]]  # roles, inputs (tokens, columns) -> weights, by stream


class Experts:
    """One layer's experts. `xs` are the residual streams (windows, tokens, hidden_size), changed in place, that of the quantized
    model first; `hs` what they read of it, of the same shape.
    """

    def __init__(self, decoder: Decoder, xs: Sequence[Tensor], hs: Sequence[Tensor], each: Each) -> None:
        self.decoder, self.each = decoder, each
        self.xs, self.hs = [x.flatten(0, 1) for x in xs], [h.flatten(0, 1) for h in hs]

    def walk(self, router: Tensor, rounded: Round) -> list[int]:
        """Through all experts. `rounded` is shown no inputs where too few tokens came. Returns each expert's tokens."""
        by_stream = [routes(h, router, self.decoder.architecture) for h in self.hs]
        for expert in range(self.decoder.architecture.experts):
            self._through(expert, [found[expert] for found in by_stream], rounded)
        return [len(route.tokens) for route in by_stream[0]]

    def _through(self, expert: int, found: Sequence[Route], rounded: Round) -> None:
        gate, up, down = (of_expert(role, expert) for role in ("gate", "up", "down"))
        shown = [h[found[0].tokens] for h in self.hs] if len(found[0].tokens) >= FEWEST_TOKENS else []
        opened = rounded((gate, up), shown)
        closed = rounded((down,), [self._gated(h, weights, expert) for h, weights in zip(shown, opened, strict=False)])
        for stream, route in enumerate(found):
            self._add(self.xs[stream], self.hs[stream], route, {**opened[stream], **closed[stream]}, expert)

    def _gated(self, h: Tensor, weights: Weights, expert: int) -> Tensor:
        """(tokens, intermediate_size), a core for each part."""
        read = torch.empty(len(h), weights[of_expert("gate", expert)].shape[0], dtype=self.decoder.dtype)

        def work(part: slice) -> None:
            read[part] = self.decoder.gated(h[part], weights, expert)

        self.each(work, _parts(len(h)))
        return read

    def _add(self, x: Tensor, h: Tensor, route: Route, weights: Weights, expert: int) -> None:
        def work(part: slice) -> None:  # no token comes twice to one expert, so parts write to rows of their own
            tokens = route.tokens[part]
            x[tokens] += route.shares[part, None] * self.decoder.through_expert(h[tokens], weights, expert)

        self.each(work, _parts(len(route.tokens)))


def _parts(count: int) -> list[slice]:
    return [slice(begin, begin + CHUNK_TOKENS) for begin in range(0, count, CHUNK_TOKENS)]
