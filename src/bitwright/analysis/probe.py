"""What the model's answers lose when some of its matrices are others: measured, from the first block that is touched.

    divergence = KL(p || q) at each position, p the reference's distribution, q that of the base with some matrices changed

The residual stream of the base is kept before every block, so a change in block k costs the blocks from k on. The base is the
reference itself, to see what one error alone costs, or a quantized model, to see what one repair alone wins. Products are in
float32: a single tensor's loss is below what bfloat16 would add. Memory: all weights of the base in float32, the residual
stream at every block, and the reference's probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bitwright.calibration.decoder import Decoder
from bitwright.calibration.sequential import part_of
from bitwright.models.architecture import TensorSlice
from bitwright.models.base import LanguageModel

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Tokens = npt.NDArray[np.int32]

CHUNK_TOKENS = 512  # whose activations are held at a time
HEAD_TOKENS = 128  # whose logits are: few enough that their memory is used again and not asked for anew


class Reference(NamedTuple):
    """What the reference answers: (tokens, vocabulary) probabilities p, and (tokens,) sums of p log p."""

    probabilities: Tensor
    negentropy: Tensor


class Probe:
    """`read` gives the base's matrices by stored name; those of `model` itself where there is none.

    `reference` is another probe's, to compare with; the base's own answers where there is none.
    """

    def __init__(
        self,
        model: LanguageModel,
        windows: Tokens,
        read: Callable[[str], Floats] | None = None,
        reference: Reference | None = None,
    ) -> None:
        self.architecture, self.roles = model.architecture, model.roles()
        self.windows = windows.astype(np.int64)
        self.decoder = Decoder(model.architecture, windows.shape[1], torch.float32)
        step = max(1, CHUNK_TOKENS // windows.shape[1])
        self.chunks = [slice(begin, begin + step) for begin in range(0, len(windows), step)]
        whole: dict[str, Floats] = {}
        self.weights: dict[tuple[str, int], Tensor] = {}
        for (role, layer), place in self.roles.items():
            if place.name not in whole:
                whole = {place.name: (read or model.read)(place.name)}  # roles of one tensor follow each other
            self.weights[role, layer] = _part(whole[place.name], place)
        with torch.inference_mode():
            self.entering = [self._embedded(self.weights["embedding", -1])]
            for layer in range(self.architecture.layers):
                self.entering.append(self._through(self.entering[-1], layer, {}))
            self.reference = self._reference(self.entering[-1]) if reference is None else reference

    def divergence(self, changed: Mapping[str, Floats]) -> Doubles:
        """(tokens,) nats, with these stored matrices in place of the base's."""
        with torch.inference_mode():
            return self._divergence(changed)

    def _divergence(self, changed: Mapping[str, Floats]) -> Doubles:
        now = {place: _part(changed[part.name], part) for place, part in self.roles.items() if part.name in changed}
        layers = [layer for role, layer in now if layer >= 0]
        first = min(layers, default=self.architecture.layers)
        x = self.entering[first]
        if ("embedding", -1) in now:
            first, x = 0, self._embedded(now["embedding", -1])
        for layer in range(first, self.architecture.layers):
            x = self._through(x, layer, now)
        return self._compared(x, now)

    def cumulative(self, changed: Mapping[str, Floats]) -> list[float]:
        """The mean divergence with the changes of the embedding and the first k blocks, for k = 0 .. all."""
        found = []
        with torch.inference_mode():
            now = {place: _part(changed[part.name], part) for place, part in self.roles.items() if part.name in changed}
            x = self._embedded(now.get(("embedding", -1), self.weights["embedding", -1]))
            for reached in range(self.architecture.layers + 1):
                rest = x
                for layer in range(reached, self.architecture.layers):
                    rest = self._through(rest, layer, {})
                found.append(float(self._compared(rest, {}).mean()))
                if reached < self.architecture.layers:
                    x = self._through(x, reached, now)
        return found

    def _embedded(self, embedding: Tensor) -> Tensor:
        return embedding[torch.from_numpy(self.windows)] * self.architecture.embedding_scale

    def _through(self, x: Tensor, layer: int, now: Mapping[tuple[str, int], Tensor]) -> Tensor:
        weights = {role: now.get((role, layer), tensor) for (role, of), tensor in self.weights.items() if of == layer}
        return torch.cat([self.decoder.through(x[chunk], weights, layer) for chunk in self.chunks])

    def _logits(self, rows: Tensor, now: Mapping[tuple[str, int], Tensor]) -> Tensor:
        h = self.decoder.normed(rows, self.weights["final_norm", -1])
        logits = h @ now.get(("head", -1), self.weights["head", -1]).T
        cap = self.architecture.logit_softcap
        return cap * torch.tanh(logits / cap) if cap else logits

    def _reference(self, x: Tensor) -> Reference:
        probabilities, negentropy = [], []
        for rows in torch.split(x.flatten(0, 1), HEAD_TOKENS):
            logits = self._logits(rows, {})
            p = torch.softmax(logits, -1)
            probabilities.append(p)
            negentropy.append(torch.linalg.vecdot(p, logits) - torch.logsumexp(logits, -1))
        return Reference(torch.cat(probabilities), torch.cat(negentropy))

    def _compared(self, x: Tensor, now: Mapping[tuple[str, int], Tensor]) -> Doubles:
        """KL = sum_v p_v log p_v - sum_v p_v l_v + log sum_v exp l_v, with l the logits found."""
        parts = []
        for begin, rows in enumerate(torch.split(x.flatten(0, 1), HEAD_TOKENS)):
            part = slice(begin * HEAD_TOKENS, begin * HEAD_TOKENS + len(rows))
            logits = self._logits(rows, now)
            cross = torch.logsumexp(logits, -1) - torch.linalg.vecdot(self.reference.probabilities[part], logits)
            parts.append((self.reference.negentropy[part] + cross).clamp_min(0).numpy())
        return np.concatenate(parts).astype(np.float64)


def _part(tensor: Floats, place: TensorSlice) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(part_of(tensor, place)))
