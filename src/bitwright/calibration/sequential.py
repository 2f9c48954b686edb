"""The walk through a decoder, block by block, that shows each layer its inputs as the quantized model makes them.

    x = embedding of all windows
    for each block:   h = norm(x)     -> moments of h  -> round q, k, v    -> a = attention(h)
                      a               -> moments of a  -> round o          -> x += o(a)
                      h = norm(x)     -> moments of h  -> round gate, up   -> m = activation(gate(h)) * up(h)
                      m               -> moments of m  -> round down       -> x += down(m)
    h = norm(x)       -> moments of h -> round the head

Where a layer is a mixture of experts, its MLP is gone through expert by expert: expert_walk.py.

Layers are rounded inside the block they stand in, each after those before it ("true sequential" in GPTQ's code), so one
forward pass in all is enough. Where a method asks how far the inputs have drifted, a second, unquantized stream of
activations walks beside the first. Memory: the residual stream, the inputs of one layer, and one block's weights.

What a layer becomes is decided by a `Rounder`; one that already knows a layer's weights needs no moments, so an
interrupted run catches up by walking alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bitwright import _native
from bitwright.calibration.cores import CHUNK_TOKENS, Each, pieces_at_once
from bitwright.calibration.decoder import Decoder, product_dtype, transposed_product
from bitwright.calibration.expert_walk import Experts
from bitwright.calibration.guidance import token_weights
from bitwright.models.architecture import LAYER_VECTORS, ROUTER, TensorSlice, kind_of
from bitwright.models.base import LanguageModel
from bitwright.observers.gram import Gram
from bitwright.rounding.needs import has_drift, is_guided

Floats = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]
Progress = Callable[[int, int], None]

STAGES = (("q", "k", "v"), ("o",), ("gate", "up"), ("down",))  # layers that read the same input
OBSERVED_TOKENS = 8192  # whose products are summed up at a time


class Rounder(Protocol):
    """Decides what each matrix becomes."""

    def needs(self, name: str) -> str:
        """What must be known of this matrix's inputs, as rounding/needs.py names it."""
        ...

    def rounded(self, name: str, moments: Gram | None) -> Floats:
        """The matrix as the quantized model multiplies by it, (rows, columns) float32. `moments` are None where nothing is asked
        for, and where too few tokens reached an expert to tell of its inputs.
        """
        ...


def walk(model: LanguageModel, windows: Tokens, rounder: Rounder, progress: Progress | None = None) -> dict[tuple[int, int], int]:
    """Show `rounder` every matrix of `model` once, in the order of computation, on `windows` (windows, tokens).

    Returns (layer, expert) -> tokens routed to it, of a mixture. `progress` is told (stages done, stages in all).
    """
    with torch.inference_mode(), pieces_at_once() as each:
        return _Walk(model, windows, rounder, each).run(progress or (lambda done, total: None))


class _Stream:
    """Activations of all windows under one set of weights."""

    def __init__(self, decoder: Decoder, x: Tensor, read: Callable[[str, TensorSlice], Floats], each: Each) -> None:
        self.decoder, self.x, self.read, self.each = decoder, x, read, each  # x: (windows, tokens, hidden_size) float32
        self.weights: dict[str, Tensor] = {}
        self.held: Tensor | None = None  # what the layers of the stage at hand read, (windows, tokens, columns)

    def enter(self, chunks: Sequence[slice], stage: int) -> Tensor:
        """What the layers of this stage read: norm(x), or what the stage before has left."""
        if self.held is None:
            held = self.held = torch.empty(self.x.shape, dtype=self.decoder.dtype)
            gain = self.weights["attention_norm" if stage == 0 else "mlp_norm"]

            def norm(chunk: slice) -> None:
                held[chunk] = self.decoder.normed(self.x[chunk], gain)

            self.each(norm, chunks)
        return self.held

    def advance(self, chunks: Sequence[slice], stage: int, layer: int) -> None:
        """Through the layers of this stage."""
        read, self.held = self.enter(chunks, stage), None
        if stage in (1, 3):
            self.each(lambda chunk: self.decoder.added(self.x[chunk], read[chunk], self.weights, STAGES[stage][0]), chunks)
            return
        width = self.weights["v" if stage == 0 else "gate"].shape[0]
        if stage == 0:
            width *= self.decoder.architecture.heads // self.decoder.architecture.kv_heads
        held = self.held = torch.empty((*self.x.shape[:2], width), dtype=self.decoder.dtype)

        def pass_on(chunk: slice) -> None:
            h = read[chunk]
            held[chunk] = self.decoder.attended(h, self.weights, layer) if stage == 0 else self.decoder.gated(h, self.weights)

        self.each(pass_on, chunks)


class _Walk:
    def __init__(self, model: LanguageModel, windows: Tokens, rounder: Rounder, each: Each) -> None:
        self.model, self.rounder, self.roles, self.each = model, rounder, model.roles(), each
        self.decoder = Decoder(model.architecture, windows.shape[1], product_dtype())
        step = max(1, CHUNK_TOKENS // windows.shape[1])
        self.chunks = [slice(begin, begin + step) for begin in range(0, len(windows), step)]
        self.known: dict[str, Floats] = {}  # matrices of the stage at hand, as they became
        self.quantized = self._stream(windows, self._known)
        needs = {rounder.needs(name) for name in self._matrices()}
        self.original = self._stream(windows, self._source) if any(map(has_drift, needs)) else None
        self.token_weights = token_weights(model, windows) if any(map(is_guided, needs)) else {}
        self.reached: dict[tuple[int, int], int] = {}

    def run(self, progress: Progress) -> dict[tuple[int, int], int]:
        layers, mixture = self.model.architecture.layers, self.model.architecture.experts > 0
        for layer in range(layers):
            for stream in self._streams():
                stream.weights = {role: self._vector(role, layer) for role in LAYER_VECTORS if (role, layer) in self.roles}
            for stage, roles in enumerate(STAGES[:2] if mixture else STAGES):
                self._round([self.roles[role, layer].name for role in roles], (layer, stage))
                for stream in self._streams():
                    stream.weights |= {role: self._matrix(stream, self.roles[role, layer]) for role in roles}
                    stream.advance(self.chunks, stage, layer)
                    for role in roles:
                        del stream.weights[role]
                progress(layer * len(STAGES) + stage + 1, layers * len(STAGES))
            if mixture:
                self._through_experts(layer)
                progress((layer + 1) * len(STAGES), layers * len(STAGES))
        if self.roles["head", -1].name != self.roles["embedding", -1].name:
            for stream in self._streams():
                stream.weights = {"mlp_norm": self._vector("final_norm", -1)}
            self._round([self.roles["head", -1].name], (-1, 2))
        return self.reached

    def _through_experts(self, layer: int) -> None:
        streams = list(self._streams())
        hs = [stream.enter(self.chunks, 2) for stream in streams]
        for stream in streams:
            stream.held = None

        def rounded(roles: tuple[str, ...], shown: Sequence[Tensor]) -> list[dict[str, Tensor]]:
            self._round_shown([self.roles[role, layer].name for role in roles], [x[:, None] for x in shown])
            return [{role: self._matrix(stream, self.roles[role, layer]) for role in roles} for stream in streams]

        experts = Experts(self.decoder, [stream.x for stream in streams], hs, self.each)
        found = experts.walk(self._vector(ROUTER, layer), rounded)
        self.reached |= {(layer, expert): tokens for expert, tokens in enumerate(found)}

    def _round_shown(self, names: Sequence[str], read: Sequence[Tensor]) -> None:
        """Have an expert's matrices rounded, which read the same input, (tokens, 1, columns) by stream; empty: too few came."""
        needs = [self.rounder.needs(name) for name in names]
        seen = self._moments(read, any(map(has_drift, needs)), None) if read and any(needs) else None
        self.known = {name: self.rounder.rounded(name, seen if need else None) for name, need in zip(names, needs, strict=True)}

    def _round(self, names: Sequence[str], place: tuple[int, int]) -> None:
        """Have these matrices rounded, which read the same input: their moments are observed once, weighed and not."""
        needs = {name: self.rounder.needs(name) for name in names}
        seen: dict[bool, Gram] = {}
        for guided in {is_guided(need) for need in needs.values() if need}:
            weights = self.token_weights.get(place) if guided else None  # the head's tokens are all alike
            read = [stream.enter(self.chunks, place[1]) for stream in self._streams()]
            drift = any(has_drift(need) for need in needs.values() if is_guided(need) == guided)
            seen[guided] = self._moments(read, drift, weights)
        self.known = {name: self.rounder.rounded(name, seen.get(is_guided(need))) for name, need in needs.items()}

    def _moments(self, read: Sequence[Tensor], asymmetric: bool, weights: Floats | None) -> Gram:
        """Of what each stream reads, (windows, tokens, columns)."""
        gram = Gram(read[0].shape[-1], asymmetric, partial(transposed_product, dtype=self.decoder.dtype))
        step = max(1, OBSERVED_TOKENS // read[0].shape[1])
        for begin in range(0, len(read[0]), step):
            part = slice(begin, begin + step)
            of_tokens = None if weights is None else weights[part].reshape(-1)
            if read[0].dtype == torch.bfloat16 and not asymmetric and _native.has_bfloat16_tiles():
                gram.take(*bfloat16_gram(read[0][part].flatten(0, 1), of_tokens))
            else:
                gram.update(rows_of(read[0][part]), rows_of(read[1][part]) if asymmetric else None, of_tokens)
        return gram

    def _stream(self, windows: Tokens, read: Callable[[str, TensorSlice], Floats]) -> _Stream:
        place = self.roles["embedding", -1]
        embedding = self.rounder.rounded(place.name, None) if read == self._known else self.model.read(place.name)
        x = torch.from_numpy(embedding)[torch.from_numpy(windows.astype(np.int64))]
        return _Stream(self.decoder, x * self.model.architecture.embedding_scale, read, self.each)

    def _streams(self) -> Iterator[_Stream]:
        yield self.quantized
        if self.original is not None:
            yield self.original

    def _matrices(self) -> Iterator[str]:
        for (role, _), place in self.roles.items():
            if any(kind_of(role) in roles for roles in STAGES) or role == "head":
                yield place.name

    def _matrix(self, stream: _Stream, place: TensorSlice) -> Tensor:
        values = stream.read(place.name, place)
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.decoder.dtype)

    def _vector(self, role: str, layer: int) -> Tensor:
        place = self.roles[role, layer]
        return torch.from_numpy(np.ascontiguousarray(part_of(self.model.read(place.name), place)))

    def _known(self, name: str, place: TensorSlice) -> Floats:
        return part_of(self.known[name], place)

    def _source(self, name: str, place: TensorSlice) -> Floats:
        return part_of(self.model.read(name), place)


def part_of(tensor: Floats, place: TensorSlice) -> Floats:
    """The rows of a stored tensor that play a role."""
    return tensor[place.begin : place.end if place.end >= 0 else None]


def bfloat16_gram(rows: Tensor, weights: Floats | None) -> tuple[Floats, float]:
    """X^T diag(s) X, on and above the diagonal, of (tokens, columns) bfloat16 rows, and the sum of s, by the matrix unit.

    Its slow twin is decoder.py's `transposed_product`. Where tokens are weighed, sqrt(s) x is rounded to bfloat16 again.
    """
    count = float(len(rows))
    if weights is not None:
        rows, count = (rows * torch.from_numpy(np.sqrt(weights))[:, None]).bfloat16(), float(weights.sum(dtype=np.float64))
    return _native.bfloat16_gram(rows.contiguous().view(torch.uint16).numpy()), count


def rows_of(x: Tensor) -> Floats:
    """(windows, tokens, columns) to (tokens of all windows, columns) float32."""
    rows: Floats = x.flatten(0, 1).float().numpy()
    return rows
