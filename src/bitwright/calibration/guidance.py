"""How much the model's answers depend on each token at each input: one backward pass, whose squares weigh the tokens of grams.

For a stage of layers that read one input, with z_t all their outputs at token t,

    s_t = |d/dz_t log p(y)|^2 / mean over tokens,    y a token drawn from the model's own distribution at each position

The mean square of that gradient is the Fisher information, so sum_t s_t |E x_t|^2 is, up to a factor, what an error E of the
weights adds to the model's KL divergence, where it does not matter which output errs (end-loss guidance, GuidedQuant, Kim
et al. 2025, arXiv:2505.07004; there with the gradient of the loss on the text, and groups of outputs).

Blocks are gone through forwards once without gradients, then backwards with them, recomputing each, for as many windows at a
time as their residual streams before all blocks fit in STREAMS_BYTES: windows know nothing of each other, so memory need not
grow with their number.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bitwright.calibration.cores import CHUNK_TOKENS
from bitwright.calibration.decoder import Decoder, Weights, linear, product_dtype
from bitwright.models.architecture import TensorSlice
from bitwright.models.base import LanguageModel

Tokens = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

STREAMS_BYTES = 2**29  # of residual streams that are held, unless those of one chunk take more
HEAD_TOKENS = 256  # whose logits are held at a time
STAGE_OF = {"q": 0, "k": 0, "v": 0, "o": 1, "gate": 2, "up": 2, "down": 3}


def token_weights(model: LanguageModel, windows: Tokens, seed: int = 0) -> dict[tuple[int, int], Floats]:
    """(layer, stage) -> s, (windows, tokens) float32 with a mean of 1, for the stages of sequential.py."""
    with torch.inference_mode(False), torch.enable_grad():
        return _Pass(model, windows, seed).run()


def windows_at_once(model: LanguageModel, length: int) -> int:
    """How many windows of `length` tokens go through all blocks together: whole chunks."""
    chunk = max(1, CHUNK_TOKENS // length)
    stream = 4 * length * model.architecture.hidden_size  # bytes of one window's, float32
    return chunk * max(1, STREAMS_BYTES // (stream * (model.architecture.layers + 1) * chunk))


def drawn_gradient(decoder: Decoder, x: Tensor, gain: Tensor, weights: Tensor, generator: torch.Generator) -> Tensor:
    """By x, (tokens, hidden_size): the gradient of sum of log p(y), y drawn at each token; the head's `weights` are float32."""
    x, cap = x.clone().requires_grad_(True), decoder.architecture.logit_softcap
    logits = decoder.normed(x, gain).float() @ weights.T
    log_p = torch.log_softmax(cap * torch.tanh(logits / cap) if cap else logits, -1)
    drawn = torch.multinomial(log_p.detach().exp(), 1, generator=generator)
    return torch.autograd.grad(log_p.gather(1, drawn).sum(), x)[0]


class _Pass:
    def __init__(self, model: LanguageModel, windows: Tokens, seed: int) -> None:
        self.model, self.windows, self.roles = model, windows.astype(np.int64), model.roles()
        self.dtype, self.generator = product_dtype(), torch.Generator().manual_seed(seed)
        self.squares = torch.zeros(model.architecture.layers, 4, *windows.shape)  # of gradients by outputs, by layer and stage
        self.place = 0, slice(0)  # layer and windows at hand

    def run(self) -> dict[tuple[int, int], Floats]:
        embedding = self.model.read(self.roles["embedding", -1].name)
        together = windows_at_once(self.model, self.windows.shape[1])
        for begin in range(0, len(self.windows), together):
            part = range(begin, min(begin + together, len(self.windows)))
            self._through(part, torch.from_numpy(embedding[self.windows[part]]) * self.model.architecture.embedding_scale)
        means = self.squares.mean((2, 3), keepdim=True)
        weights = torch.where(means > 0, self.squares / means, 1.0)
        return {(layer, stage): found.numpy() for layer, stages in enumerate(weights) for stage, found in enumerate(stages)}

    def _through(self, part: range, x: Tensor) -> None:
        """Forwards and backwards with these windows, whose residual stream begins as x, (windows, tokens, hidden_size)."""
        layers, length = self.model.architecture.layers, self.windows.shape[1]
        step = max(1, CHUNK_TOKENS // length)
        chunks = [slice(begin, begin + step) for begin in range(0, len(part), step)]
        plain = Decoder(self.model.architecture, length, self.dtype)
        entering = [x]  # each block
        with torch.no_grad():
            for layer in range(layers):
                weights = self._weights(layer)
                entering.append(torch.cat([plain.through(entering[-1][chunk], weights, layer) for chunk in chunks]))
        gradient = self._drawn(plain, entering.pop())
        watched = Decoder(self.model.architecture, length, self.dtype, self._tapped)
        for layer in reversed(range(layers)):
            x, weights, before = entering.pop(), self._weights(layer), list[Tensor]()
            for chunk in chunks:
                self.place = layer, slice(part.start + chunk.start, min(part.start + chunk.stop, part.stop))
                begun = x[chunk].clone().requires_grad_(True)
                before += torch.autograd.grad(watched.through(begun, weights, layer), begun, gradient[chunk])
            gradient = torch.cat(before)

    def _drawn(self, decoder: Decoder, x: Tensor) -> Tensor:
        """The gradient, by the last block's output, of the log-probability of tokens drawn at all positions."""
        gain, weights = self._read("final_norm", -1), self._read("head", -1).float()
        parts = torch.split(x.flatten(0, 1), HEAD_TOKENS)
        return torch.cat([drawn_gradient(decoder, part, gain, weights, self.generator) for part in parts]).view(x.shape)

    def _tapped(self, x: Tensor, weights: Weights, role: str) -> Tensor:
        """The product, adding up the squares of its outputs' gradients."""
        z, (layer, windows) = linear(x, weights, role), self.place

        def told(gradient: Tensor) -> None:
            self.squares[layer, STAGE_OF[role], windows] += gradient.float().square().sum(-1)

        z.register_hook(told)  # type: ignore[no-untyped-call]
        return z

    def _weights(self, layer: int) -> Mapping[str, Tensor]:
        return {role: self._read(role, of) for role, of in self.roles if of == layer}

    def _read(self, role: str, layer: int) -> Tensor:
        place: TensorSlice = self.roles[role, layer]
        tensor = self.model.read(place.name)[place.begin : place.end if place.end >= 0 else None]
        values = torch.from_numpy(np.ascontiguousarray(tensor))
        return values.to(self.dtype) if values.ndim == 2 else values
