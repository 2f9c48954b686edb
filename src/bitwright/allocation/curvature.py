"""How much the model's answers depend on each matrix: one backward pass, from which the loss of any error can be told.

For a small change E of a matrix with inputs x_t and outputs z_t = W x_t, the divergence of the model's distribution from
what it was is, to second order and taking tokens and outputs one by one,

    KL ~ 1/2 sum_r mean_t (g_tr (E x_t)_r)^2,   g_t = d/dz_t of the log-probability of tokens drawn from the model itself

because the mean square of that gradient is the Fisher information (Amari 1998; for networks Martens 2014, arXiv:1412.1193).
The mean over t is held as a product: s_t = mean_r g_tr^2 weighs the tokens, f_r = mean_t g_tr^2 / mean_tr g_tr^2 the rows,

    KL ~ 1/2 sum_r f_r (E S E^T)_rr,   S = mean_t s_t x_t x_t^T

S is the gram with end-loss guidance of GuidedQuant (Kim et al. 2025, arXiv:2505.07004) for one group of outputs. Weighing
tokens matters: a few of them have inputs a hundred times larger than all others, and nothing depends on them.

Blocks are gone through forwards once without gradients, then backwards with them, recomputing each: memory holds the
residual stream at every block and one block's activations and weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bitwright.calibration.cores import CHUNK_TOKENS
from bitwright.calibration.decoder import Decoder, Weights, linear, product_dtype
from bitwright.calibration.sequential import part_of
from bitwright.models.architecture import LAYER_MATRICES
from bitwright.models.base import LanguageModel

Floats = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]
Progress = Callable[[int, int], None]

HEAD_TOKENS = 256  # whose logits are held at a time
BACK, HEAD = 16, 60  # of progress: what a block takes backwards, and the head, over a block forwards; candidates included
_READS_WITH = {"k": "q", "v": "q", "up": "gate"}  # matrices that read another's input


@dataclass(frozen=True, eq=False)
class Curvature:
    """Of one matrix (rows, columns).

    `rows`      (rows,) float32, f above; of an embedding how often each row is looked up, a token
    `inputs`    (columns, columns) float32, mean x x^T of half of the text, which all matrices that read one input share;
                None for an embedding
    `weighted`  (columns, columns) float32, S above, of each half, that of `inputs` first; of an embedding (columns,), the
                diagonal of S, whose rest is not needed
    """

    rows: Floats
    weighted: tuple[Floats, Floats]
    inputs: Floats | None

    def of_rows(self, begin: int, end: int) -> Curvature:
        """Of the block of rows [begin, end)."""
        return replace(self, rows=self.rows[begin:end])

    def divergence(self, error: Floats, rows: slice | npt.NDArray[np.intp] = slice(None)) -> tuple[Floats, Floats]:
        """(rows,) nats a token that each row of an error costs, on each half of the text; `rows` says which rows these are.

        An error that was chosen with `inputs` in view costs less than the truth on that half, and more on the other.
        """
        costs = []
        for weighted in self.weighted:
            reached = error * weighted if weighted.ndim == 1 else _product(error, weighted)
            costs.append(0.5 * self.rows[rows] * np.einsum("ij,ij->i", reached, error))
        return costs[0], costs[1]


def curvatures(
    model: LanguageModel, windows: Tokens, seed: int = 0, progress: Progress | None = None
) -> Iterator[tuple[str, int, Curvature]]:
    """(role, layer, curvature) of every matrix: the head, the blocks from the last to the first, the embedding.

    `windows` (windows, tokens) is text like that which the model will read. `progress` is told (work done, work in all).
    """
    return _Pass(model, windows, seed, progress or (lambda done, total: None)).run()


class Sums:
    """What is added up of one matrix over the tokens of each half."""

    def __init__(self, x: Tensor, gradient: Tensor) -> None:
        columns = x.shape[1]
        self.rows = torch.zeros(gradient.shape[1])
        self.weighted = torch.zeros(2, columns, columns)
        self.tokens = [0, 0]

    def add(self, x: Tensor, squares: Tensor, half: int) -> None:
        """`x` (tokens, columns), squares of gradients (tokens, rows)."""
        self.rows += squares.sum(0)
        self.weighted[half].addmm_(x.T, x * squares.mean(1, keepdim=True))
        self.tokens[half] += len(x)

    def curvature(self, inputs: Floats | None) -> Curvature:
        mean = max(float(self.rows.mean()), 1e-38)
        first = (self.weighted[0] / self.tokens[0]).numpy()
        second = (self.weighted[1] / self.tokens[1]).numpy() if self.tokens[1] else first
        return Curvature((self.rows / mean).numpy(), (first, second), inputs)


class _Pass:
    def __init__(self, model: LanguageModel, windows: Tokens, seed: int, progress: Progress) -> None:
        self.model, self.windows, self.progress = model, windows.astype(np.int64), progress
        self.roles, self.architecture = model.roles(), model.architecture
        self.dtype, self.tokens = product_dtype(), windows.size
        self.generator = torch.Generator().manual_seed(seed)
        step = max(1, CHUNK_TOKENS // windows.shape[1])
        self.chunks = [slice(begin, begin + step) for begin in range(0, len(windows), step)]
        self.sums: dict[str, Sums] = {}
        self.grams: dict[str, Tensor] = {}  # of inputs in the first half, by the first role that reads them
        self.half = 0  # of the chunk at hand

    def run(self) -> Iterator[tuple[str, int, Curvature]]:
        layers = self.architecture.layers
        work = layers + HEAD + BACK * layers
        embedding = self.model.read(self.roles["embedding", -1].name)
        x = torch.from_numpy(embedding[self.windows]) * self.architecture.embedding_scale
        entering = [x]  # the residual stream before each block, and after the last
        plain = self._decoder(linear)
        with torch.inference_mode():
            for layer in range(layers):
                weights = self._weights(layer)
                entering.append(torch.cat([plain.through(entering[-1][chunk], weights, layer) for chunk in self.chunks]))
                self.progress(layer + 1, work)
        gradient, head = self._head(entering.pop().clone())
        yield "head", -1, head
        self.progress(layers + HEAD, work)
        watched = self._decoder(self._tapped)
        for layer in reversed(range(layers)):
            gradient = self._back(watched, entering.pop().clone(), gradient, layer)
            inputs = {role: (gram / self.sums[role].tokens[0]).numpy() for role, gram in self.grams.items()}
            for role in sorted(LAYER_MATRICES, key=lambda role: _READS_WITH.get(role, role)):
                yield role, layer, self.sums[role].curvature(inputs[_READS_WITH.get(role, role)])
            self.progress(work - BACK * layer, work)
        yield "embedding", -1, self._looked_up(gradient, len(embedding))

    def _decoder(self, product: Callable[[Tensor, Weights, str], Tensor]) -> Decoder:
        return Decoder(self.architecture, self.windows.shape[1], self.dtype, product)

    def _weights(self, layer: int) -> dict[str, Tensor]:
        return {role: self._read(role, layer) for role, of in self.roles if of == layer}

    def _read(self, role: str, layer: int) -> Tensor:
        place = self.roles[role, layer]
        values = torch.from_numpy(np.ascontiguousarray(part_of(self.model.read(place.name), place)))
        return values.to(self.dtype) if values.ndim == 2 else values

    def _tapped(self, x: Tensor, weights: Mapping[str, Tensor], role: str) -> Tensor:
        """The product, adding up what its inputs and the gradient of its outputs tell."""
        z = linear(x, weights, role)
        rows = x.detach().flatten(0, 1).float()
        half = self.half
        if role not in _READS_WITH and half == 0:
            self.grams[role] = self.grams.get(role, torch.zeros(())) + rows.T @ rows

        def told(gradient: Tensor) -> None:
            squares = gradient.flatten(0, 1).float().square()
            self.sums.setdefault(role, Sums(rows, squares)).add(rows, squares, half)

        z.register_hook(told)  # type: ignore[no-untyped-call]
        return z

    def _back(self, decoder: Decoder, x: Tensor, gradient: Tensor, layer: int) -> Tensor:
        """The gradient before a block from that after it; `sums` and `grams` then tell of its matrices."""
        self.sums, self.grams = {}, {}
        weights = self._weights(layer)
        before: list[Tensor] = []
        for number, chunk in enumerate(self.chunks):
            self.half = number % 2
            entering = x[chunk].requires_grad_(True)
            before += torch.autograd.grad(decoder.through(entering, weights, layer), entering, gradient[chunk])
        return torch.cat(before)

    def _head(self, x: Tensor) -> tuple[Tensor, Curvature]:
        """The gradient of log-probabilities of tokens drawn from the model with respect to x, and the head's curvature.

        Of logits the Fisher information is known, p (1 - p); no tokens need to be drawn for it.
        """
        gain, weights = self._read("final_norm", -1), self._read("head", -1).float()
        flat = x.flatten(0, 1)
        decoder, gradient, sums, gram = self._decoder(linear), torch.empty_like(flat), None, torch.zeros(())
        for number, begin in enumerate(range(0, len(flat), HEAD_TOKENS)):
            part = flat[begin : begin + HEAD_TOKENS].clone().requires_grad_(True)
            h = decoder.normed(part, gain).float()
            logits = h @ weights.T
            cap = self.architecture.logit_softcap
            log_p = torch.log_softmax(cap * torch.tanh(logits / cap) if cap else logits, -1)
            with torch.no_grad():
                p = log_p.exp()
                drawn = self._drawn(p)
                sums = sums or Sums(h, p)
                sums.add(h, p * (1 - p), number % 2)
                gram = gram + h.T @ h if number % 2 == 0 else gram
            gradient[begin : begin + HEAD_TOKENS] = torch.autograd.grad(log_p.gather(1, drawn).sum(), part)[0]
        assert sums is not None
        return gradient.view(x.shape), sums.curvature((gram / sums.tokens[0]).numpy())

    def _drawn(self, p: Tensor) -> Tensor:
        """(tokens, 1) one token of each distribution (tokens, vocabulary), by its cumulative sums."""
        below = p.cumsum(-1)
        heights = torch.rand(len(p), 1, generator=self.generator) * below[:, -1:]
        return torch.searchsorted(below, heights, right=True).clamp_max(p.shape[1] - 1)

    def _looked_up(self, gradient: Tensor, rows: int) -> Curvature:
        counts = np.bincount(self.windows.reshape(-1), minlength=rows) / self.tokens
        columns = gradient.flatten(0, 1).square().mean(0) * self.architecture.embedding_scale**2
        return Curvature(counts.astype(np.float32), (columns.numpy(), columns.numpy()), None)


def _product(a: Floats, b: Floats) -> Floats:
    """By torch: numpy's threads would keep spinning into torch's next product."""
    product: Floats = (torch.from_numpy(np.ascontiguousarray(a)) @ torch.from_numpy(np.ascontiguousarray(b))).numpy()
    return product
