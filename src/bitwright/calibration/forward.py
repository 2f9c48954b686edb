"""One forward pass of a whole model, block by block over all windows, with a hand on every layer's input.

    for each block:   h = norm(x)   q, k, v read it     a = attention(h)              o reads it      x += o(a)
                      h = norm(x)   gate, up read it    m = activation(gate) * up     down reads it   x += down(m)
    h = norm(x)       the head reads it

Of a mixture of experts, each expert is shown the tokens that are routed to it; the router reads what nobody changes.

Whoever passes a `change` is shown each of these inputs, and may replace it. The walk of sequential.py also rounds on the way;
this one computes the model as it is, and holds one block's weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bitwright.calibration.cores import CHUNK_TOKENS
from bitwright.calibration.decoder import Decoder, Weights, product_dtype, transposed_product
from bitwright.calibration.routing import routes
from bitwright.calibration.sequential import STAGES, part_of, rows_of
from bitwright.models.architecture import LAYER_VECTORS, ROUTER, layer_matrices, of_expert
from bitwright.models.base import LanguageModel
from bitwright.observers.gram import Gram
from bitwright.observers.inputs import Inputs

Tokens = npt.NDArray[np.int32]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Site:
    """An input: its layer, -1 for the head's, and the roles that read it."""

    layer: int
    roles: tuple[str, ...]


# (windows, tokens, columns) of a part of the windows; of an expert (1, tokens, columns), those of all windows that come to it
Change = Callable[[Site, Tensor], Tensor]


@torch.inference_mode()  # type: ignore[no-untyped-call, untyped-decorator, unused-ignore]
def forward(model: LanguageModel, windows: Tokens, change: Change, dtype: torch.dtype) -> Iterator[Site]:
    """Every site in the order of computation, each when `change` has seen all windows (windows, tokens) there. The sites of an
    expert that no token comes to are left out.

    Products take their operands in `dtype`.
    """
    decoder, roles = Decoder(model.architecture, windows.shape[1], dtype), model.roles()
    step = max(1, CHUNK_TOKENS // windows.shape[1])
    chunks = [slice(begin, begin + step) for begin in range(0, len(windows), step)]

    def tensor(role: str, layer: int) -> Tensor:
        place = roles[role, layer]
        values = torch.from_numpy(np.ascontiguousarray(part_of(model.read(place.name), place)))
        return values.to(dtype) if values.ndim == 2 and role != ROUTER else values

    x = torch.from_numpy(model.read(roles["embedding", -1].name))[torch.from_numpy(windows.astype(np.int64))]
    x = x * model.architecture.embedding_scale
    for layer in range(model.architecture.layers):
        present = [role for role in (*layer_matrices(model.architecture), ROUTER, *LAYER_VECTORS) if (role, layer) in roles]
        weights = {role: tensor(role, layer) for role in present}
        sites = [Site(layer, stage) for stage in STAGES]
        for stage, norm in ((0, "attention_norm"), (2, "mlp_norm")):
            if stage == 2 and model.architecture.experts:  # noqa: PLR2004 - the MLP's
                h = torch.cat([decoder.normed(x[chunk], weights[norm]) for chunk in chunks])
                yield from _through_experts(decoder, (x, h), weights, layer, change)
                continue
            held = []
            for chunk in chunks:
                h = change(sites[stage], decoder.normed(x[chunk], weights[norm]))
                held.append(decoder.attended(h, weights, layer) if stage == 0 else decoder.gated(h, weights))
            yield sites[stage]
            for chunk, read in zip(chunks, held, strict=True):
                decoder.added(x[chunk], change(sites[stage + 1], read), weights, STAGES[stage + 1][0])
            yield sites[stage + 1]
    head, gain = Site(-1, ("head",)), tensor("final_norm", -1)
    for chunk in chunks:
        change(head, decoder.normed(x[chunk], gain))
    yield head


def _through_experts(
    decoder: Decoder, streams: tuple[Tensor, Tensor], weights: Weights, layer: int, change: Change
) -> Iterator[Site]:
    """Adds to the residual stream what the experts of a layer give; `streams` are that and what they read, both (windows, tokens,
    hidden_size).
    """
    x, h = (stream.flatten(0, 1) for stream in streams)
    for expert, (tokens, shares) in enumerate(routes(h, weights[ROUTER], decoder.architecture)):
        gate, up, down = (of_expert(role, expert) for role in ("gate", "up", "down"))
        opening, closing = Site(layer, (gate, up)), Site(layer, (down,))
        if not len(tokens):
            continue
        parts = list(zip(torch.split(tokens, CHUNK_TOKENS), torch.split(shares, CHUNK_TOKENS), strict=True))
        held = [decoder.gated(change(opening, h[part][None]), weights, expert) for part, _ in parts]
        yield opening
        for (part, of_part), read in zip(parts, held, strict=True):
            x[part] += of_part[:, None] * decoder.linear(change(closing, read), weights, down)[0].float()
        yield closing


class _Sums:
    """What is summed up of one input."""

    def __init__(self, columns: int) -> None:
        self.gram = Gram(columns, product=partial(transposed_product, dtype=product_dtype()))
        self.total, self.magnitude, self.largest = (np.zeros(columns) for _ in range(3))

    def update(self, rows: npt.NDArray[np.float32]) -> None:
        self.gram.update(rows)
        sizes = np.abs(rows)
        self.total += rows.sum(axis=0, dtype=np.float64)
        self.magnitude += sizes.sum(axis=0, dtype=np.float64)
        self.largest = np.maximum(self.largest, sizes.max(axis=0))


def observe(model: LanguageModel, windows: Tokens, progress: Progress | None = None) -> Iterator[Inputs]:
    """What every layer reads, site by site, on `windows` (windows, tokens). `progress` is told (sites done, sites in all)."""
    sums: dict[Site, _Sums] = {}
    experts = max(1, model.architecture.experts)  # those that no token comes to are passed over
    total = (2 + 2 * experts) * model.architecture.layers + 1

    def change(site: Site, x: Tensor) -> Tensor:
        rows = rows_of(x)
        sums.setdefault(site, _Sums(rows.shape[1])).update(rows)
        return x

    for done, site in enumerate(forward(model, windows, change, product_dtype()), 1):
        found = sums.pop(site)
        count = found.gram.count
        yield Inputs(site.layer, site.roles, found.gram.gram, found.total / count, found.magnitude / count, found.largest)
        if progress is not None:
            progress(done, total)
