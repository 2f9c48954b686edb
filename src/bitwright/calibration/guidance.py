"""How much the model's answers depend on each token at each input: one backward pass, whose squares weigh the tokens of grams.

For a stage of layers that read one input, with z_t all their outputs at token t,

    s_t = |d/dz_t log p(y)|^2 / mean over tokens,    y a token drawn from the model's own distribution at each position

The mean square of that gradient is the Fisher information, so sum_t s_t |E x_t|^2 is, up to a factor, what an error E of the
weights adds to the model's KL divergence, where it does not matter which output errs (end-loss guidance, GuidedQuant, Kim
et al. 2025, arXiv:2505.07004; there with the gradient of the loss on the text, and groups of outputs).

Blocks are gone through forwards once without gradients, then backwards with them, recomputing each.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bitwright.calibration.decoder import Decoder, Weights, linear, product_dtype
from bitwright.models.architecture import TensorSlice
from bitwright.models.base import LanguageModel

Tokens = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

CHUNK_TOKENS = 1024  # that are computed at a time
HEAD_TOKENS = 256  # whose logits are held at a time
STAGE_OF = {"q": 0, "k": 0, "v": 0, "o": 1, "gate": 2, "up": 2, "down": 3}


def token_weights(model: LanguageModel, windows: Tokens, seed: int = 0) -> dict[tuple[int, int], Floats]:
    """(layer, stage) -> s, (windows, tokens) float32 with a mean of 1, for the stages of sequential.py."""
    with torch.inference_mode(False), torch.enable_grad():
        return _Pass(model, windows, seed).run()


class _Pass:
    def __init__(self, model: LanguageModel, windows: Tokens, seed: int) -> None:
        self.model, self.windows, self.roles = model, windows.astype(np.int64), model.roles()
        self.dtype, self.generator = product_dtype(), torch.Generator().manual_seed(seed)
        step = max(1, CHUNK_TOKENS // windows.shape[1])
        self.chunks = [slice(begin, begin + step) for begin in range(0, len(windows), step)]
        self.squares = torch.zeros(4, *windows.shape)  # of the block at hand, by stage
        self.chunk = self.chunks[0]

    def run(self) -> dict[tuple[int, int], Floats]:
        architecture = self.model.architecture
        embedding = self.model.read(self.roles["embedding", -1].name)
        entering = [torch.from_numpy(embedding[self.windows]) * architecture.embedding_scale]
        plain = Decoder(architecture, self.windows.shape[1], self.dtype)
        with torch.no_grad():
            for layer in range(architecture.layers):
                weights = self._weights(layer)
                entering.append(torch.cat([plain.through(entering[-1][chunk], weights, layer) for chunk in self.chunks]))
        gradient = self._drawn(plain, entering.pop())
        watched = Decoder(architecture, self.windows.shape[1], self.dtype, self._tapped)
        found = {}
        for layer in reversed(range(architecture.layers)):
            gradient = self._back(watched, entering.pop(), gradient, layer)
            for stage, squares in enumerate(self.squares):
                mean = squares.mean()
                found[layer, stage] = (squares / mean if mean > 0 else torch.ones_like(squares)).numpy()
        return found

    def _drawn(self, decoder: Decoder, x: Tensor) -> Tensor:
        """The gradient, by the last block's output, of the log-probability of tokens drawn at all positions."""
        gain, weights = self._read("final_norm", -1), self._read("head", -1).float()
        flat, cap = x.flatten(0, 1), self.model.architecture.logit_softcap
        gradient = torch.empty_like(flat)
        for begin in range(0, len(flat), HEAD_TOKENS):
            part = flat[begin : begin + HEAD_TOKENS].clone().requires_grad_(True)
            logits = decoder.normed(part, gain).float() @ weights.T
            log_p = torch.log_softmax(cap * torch.tanh(logits / cap) if cap else logits, -1)
            drawn = torch.multinomial(log_p.detach().exp(), 1, generator=self.generator)
            gradient[begin : begin + HEAD_TOKENS] = torch.autograd.grad(log_p.gather(1, drawn).sum(), part)[0]
        return gradient.view(x.shape)

    def _back(self, decoder: Decoder, x: Tensor, gradient: Tensor, layer: int) -> Tensor:
        """The gradient before a block from that after it; `squares` then tells of its outputs."""
        self.squares = torch.zeros_like(self.squares)
        before: list[Tensor] = []
        weights = self._weights(layer)
        for chunk in self.chunks:
            self.chunk = chunk
            entering = x[chunk].clone().requires_grad_(True)
            before += torch.autograd.grad(decoder.through(entering, weights, layer), entering, gradient[chunk])
        return torch.cat(before)

    def _tapped(self, x: Tensor, weights: Weights, role: str) -> Tensor:
        """The product, adding up the squares of its outputs' gradients."""
        z, chunk = linear(x, weights, role), self.chunk

        def told(gradient: Tensor) -> None:
            self.squares[STAGE_OF[role], chunk] += gradient.float().square().sum(-1)

        z.register_hook(told)  # type: ignore[no-untyped-call]
        return z

    def _weights(self, layer: int) -> Mapping[str, Tensor]:
        return {role: self._read(role, of) for role, of in self.roles if of == layer}

    def _read(self, role: str, layer: int) -> Tensor:
        place: TensorSlice = self.roles[role, layer]
        tensor = self.model.read(place.name)[place.begin : place.end if place.end >= 0 else None]
        values = torch.from_numpy(np.ascontiguousarray(tensor))
        return values.to(self.dtype) if values.ndim == 2 else values
