"""Distillation: scales and norms are trained, end to end, until the quantized model answers more like the original.

    loss = mean over tokens of KL(p || q),   p, q what the original and the quantized model say of the next token
    W = (levels - zero point) * scale,       d loss / d scale = sum over the group of (levels - zero point) * d loss / dW

Codes and zero points stay as they were rounded, so that nothing grows: of a group one number is trained, of a vector (norms,
biases) each; where the scales of groups are multiples of one for their row, that one. Steps are Adam's (Kingma and Ba 2015,
arXiv:1412.6980), relative to the size of what they change. Text that the model wrote is enough, as in LLM-QAT (Liu et al.
2023, arXiv:2305.17888); scales alone are what EfficientQAT trains in the end (Chen et al. 2024, arXiv:2407.11062), there to
say the text's next token.

Blocks are gone through forwards once without gradients, then backwards with them, recomputing each. Memory holds all levels
in float16, the original's last activations for all windows, and one block's weights and activations.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bitwright.cache import keep
from bitwright.calibration.decoder import Decoder, product_dtype
from bitwright.calibration.forward import Site, forward
from bitwright.formats.hadamard import rotate
from bitwright.formats.scales import round_scale, store_scale
from bitwright.models.architecture import LAYER_MATRICES, LAYER_VECTORS, ROUTER, Architecture, TensorSlice, kind_of
from bitwright.models.base import Dense, LanguageModel, Packed

Tokens = npt.NDArray[np.int32]
Progress = Callable[[int, int], None]

RATE, LEAST_RATE = 3e-3, 0.02  # the largest step, of a value's size; the last steps, of the largest
WARM_UP = 4  # steps
MOMENTUM, SPREAD = 0.9, 0.99  # how much of the past Adam's means of gradients and of their squares keep
STEP_TOKENS = 2048
HEAD_TOKENS = 256  # whose logits are held at a time
KEPT_EVERY = 8  # steps
TRAINED_SCALES = ("fp16", "bf16", "fp32", "row5")  # of row5 the one of each row; others are powers of two, or multiples of one


class Student(Protocol):
    """A quantized model as far as it is looked at here."""

    architecture: Architecture

    def roles(self) -> Mapping[tuple[str, int], TensorSlice]: ...

    def stored(self, name: str) -> Packed | Dense: ...


class Trained:
    """A tensor of which `values` are trained; `tensor` is how it was stored."""

    def __init__(self, tensor: Packed | Dense) -> None:
        self.tensor, self.shape = tensor, tensor.shape
        if isinstance(tensor, Packed):
            quantized = tensor.qtensor()
            assert quantized.params is not None
            scale, shared = quantized.params.scale, quantized.params.row_scale
            trained = scale if shared is None else shared
            self.values = torch.from_numpy(trained.astype(np.float32)).view(-1, 1)
            ones = replace(quantized.params, scale=(scale.reshape(len(trained), -1) / trained[:, None]).reshape(-1))
            levels = replace(quantized, params=ones, rotation=0).dequantize()
            self.levels = torch.from_numpy(levels).view(len(self.values), -1).half()
            self.size = self.values.abs()
        else:
            self.values = torch.from_numpy(tensor.dequantize().copy())
            self.size = self.values.abs().mean().expand_as(self.values)
        self.mean, self.square = torch.zeros_like(self.values), torch.zeros_like(self.values)

    def weights(self) -> Tensor:
        """As the model multiplies by them, float32."""
        if isinstance(self.tensor, Dense):
            return self.values
        return self._turned((self.levels * self.values).view(self.shape))

    def gradient(self, by_weights: Tensor) -> Tensor:
        """The gradient by `values` from that by the weights."""
        if isinstance(self.tensor, Dense):
            return by_weights.float()
        return (self._turned(by_weights.float()).view(self.levels.shape) * self.levels).sum(1, keepdim=True)

    def step(self, gradient: Tensor, number: int, rate: float) -> None:
        """Adam's, `number` counted from 1."""
        self.mean.mul_(MOMENTUM).add_(gradient, alpha=1 - MOMENTUM)
        self.square.mul_(SPREAD).addcmul_(gradient, gradient, value=1 - SPREAD)
        typical = (self.square / (1 - SPREAD**number)).sqrt() + 1e-20
        self.values -= rate * self.size * (self.mean / (1 - MOMENTUM**number)) / typical

    def stored(self) -> Packed | Dense:
        """In the types that it came with. Raises `SchemeError` for a scale beyond its type."""
        if isinstance(self.tensor, Packed):
            kind = self.tensor.scheme.scale
            return replace(self.tensor, scale=store_scale(round_scale(self.values.view(-1).numpy(), kind), kind))
        kind = self.tensor.dtype
        return Dense(kind, store_scale(self.values.numpy(), kind).reshape(self.shape))

    def _turned(self, matrix: Tensor) -> Tensor:
        assert isinstance(self.tensor, Packed)
        return torch.from_numpy(rotate(matrix.numpy(), self.tensor.rotation)) if self.tensor.rotation else matrix


class Distillation:
    """`student` beside `teacher`, the original, on `windows` (windows, tokens), which are gone through `passes` times."""

    def __init__(self, teacher: LanguageModel, student: Student, windows: Tokens, passes: int, seed: int = 0) -> None:
        self.architecture, self.roles, self.dtype = student.architecture, student.roles(), product_dtype()
        self.decoder = Decoder(self.architecture, windows.shape[1], self.dtype)
        self.windows = torch.from_numpy(windows.astype(np.int64))
        self.embedding, self.head = _embedding(student), self._head(student)
        self.answers, self.original_head = _last_activations(teacher, windows, self.dtype), self._head(teacher)
        self.trained: dict[str, Trained] = {}
        self.fixed: dict[str, Tensor] = {}
        for (role, _), place in self.roles.items():
            played = kind_of(role) in (*LAYER_MATRICES, ROUTER, *LAYER_VECTORS, "final_norm")
            if played and place.name not in {*self.trained, *self.fixed}:
                self._take(place.name, student.stored(place.name), torch.float32 if role == ROUTER else self.dtype)
        self.batches = _batches(windows.shape, passes, seed)

    def run(self, state: Path | None = None, progress: Progress | None = None) -> Iterator[tuple[str, Packed | Dense]]:
        """(name, tensor) of all that was trained. Raises `SchemeError` naming a tensor whose scales went beyond their type.

        What was done is kept in the file `state` now and then, and a later run of the same goes on from there.
        `progress` is told (steps done, steps in all).
        """
        total = len(self.batches)
        with torch.inference_mode(False):
            for number in range(self._resumed(state), total):
                _, gradients = self.gradients(self.batches[number])
                rate = RATE * max(LEAST_RATE, 0.5 + 0.5 * math.cos(math.pi * number / total)) * min(1, (number + 1) / WARM_UP)
                for name, gradient in gradients.items():
                    self.trained[name].step(gradient, number + 1, rate)
                if (number + 1) % KEPT_EVERY == 0 or number + 1 == total:
                    self._keep(state, number + 1)
                if progress is not None:
                    progress(number + 1, total)
        for name, tensor in self.trained.items():
            yield name, tensor.stored()

    def gradients(self, chosen: Tensor) -> tuple[float, dict[str, Tensor]]:
        """The loss on these windows (their numbers), in nats a token, and its gradient by all that is trained."""
        x = self.embedding[self.windows[chosen]] * self.architecture.embedding_scale
        entering = [x]
        with torch.no_grad():
            for layer in range(self.architecture.layers):
                entering.append(self.decoder.through(entering[-1], self._block(layer)[1], layer))
        found: dict[str, Tensor] = {}
        loss, gradient = self._divergence(entering.pop(), self.answers[chosen], found)
        for layer in reversed(range(self.architecture.layers)):
            x = entering.pop().requires_grad_(True)
            leaves, weights = self._block(layer)
            with torch.enable_grad():
                after = self.decoder.through(x, weights, layer)
            # an expert that no token of this step comes to has no part in the loss
            gradient, *by_leaves = torch.autograd.grad(after, [x, *leaves.values()], gradient, materialize_grads=True)
            for name, by_weights in zip(leaves, by_leaves, strict=True):
                found[name] = self.trained[name].gradient(by_weights)
        return loss, found

    def _divergence(self, x: Tensor, answers: Tensor, found: dict[str, Tensor]) -> tuple[float, Tensor]:
        """The loss and its gradient by the last block's output; that by the last norm goes to `found`."""
        name = self.roles["final_norm", -1].name
        gain = self.trained[name].values.clone().requires_grad_(True)
        flat, said = x.flatten(0, 1), answers.flatten(0, 1)
        gradient, by_gain, loss = torch.empty_like(flat), torch.zeros_like(gain), 0.0
        for begin in range(0, len(flat), HEAD_TOKENS):
            part = slice(begin, begin + HEAD_TOKENS)
            with torch.no_grad():
                log_p = self._log_probabilities(said[part], self.original_head)
            with torch.enable_grad():
                before = flat[part].clone().requires_grad_(True)
                log_q = self._log_probabilities(self.decoder.normed(before, gain), self.head)
                kl = torch.nn.functional.kl_div(log_q, log_p, reduction="sum", log_target=True) / len(flat)
            gradient[part], here = torch.autograd.grad(kl, (before, gain))
            by_gain += here
            loss += float(kl.detach())
        found[name] = by_gain
        return loss, gradient.view(x.shape)

    def _log_probabilities(self, h: Tensor, head: Tensor) -> Tensor:
        logits, cap = torch.nn.functional.linear(h, head).float(), self.architecture.logit_softcap
        return torch.log_softmax(cap * torch.tanh(logits / cap) if cap else logits, -1)

    def _block(self, layer: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What is trained of a block, by name, and the block's weights, by role, as parts of it."""
        leaves: dict[str, Tensor] = {}
        weights = {}
        for (role, of), place in self.roles.items():
            if of != layer:
                continue
            if place.name in self.trained and place.name not in leaves:
                values = self.trained[place.name].weights()
                values = values.to(self.dtype) if values.ndim == 2 else values.clone()  # noqa: PLR2004 - of a matrix
                leaves[place.name] = values.requires_grad_(True)
            weights[role] = _part(leaves[place.name] if place.name in leaves else self.fixed[place.name], place)
        return leaves, weights

    def _take(self, name: str, tensor: Packed | Dense, dtype: torch.dtype) -> None:
        scales = isinstance(tensor, Packed) and tensor.scheme.scale in TRAINED_SCALES
        if scales or (isinstance(tensor, Dense) and len(tensor.shape) == 1):
            self.trained[name] = Trained(tensor)
        else:
            self.fixed[name] = torch.from_numpy(np.ascontiguousarray(tensor.dequantize())).to(dtype)

    def _head(self, model: LanguageModel | Student) -> Tensor:
        place = model.roles()["head", -1]
        return _part(torch.from_numpy(np.ascontiguousarray(model.stored(place.name).dequantize())), place).to(self.dtype)

    def _keep(self, state: Path | None, done: int) -> None:
        if state is None:
            return
        arrays = {
            f"{index}.{part}": getattr(tensor, part).numpy()
            for index, tensor in enumerate(self.trained.values())
            for part in ("values", "mean", "square")
        }
        keep(state, lambda file: np.savez(file, done=np.array(done), **arrays))

    def _resumed(self, state: Path | None) -> int:
        """Steps done by an earlier run, whose values are taken over; 0 where there was none, or it is damaged."""
        if state is None or not state.exists():
            return 0
        try:
            with np.load(state, allow_pickle=False) as file:
                found = {name: torch.from_numpy(file[name]) for name in file.files}
            read = [[found[f"{index}.{part}"] for part in ("values", "mean", "square")] for index in range(len(self.trained))]
            done = int(found["done"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return 0
        shapes = [[part.shape for part in parts] for parts in read]
        if shapes != [3 * [tensor.values.shape] for tensor in self.trained.values()]:
            return 0
        for tensor, (values, mean, square) in zip(self.trained.values(), read, strict=True):
            tensor.values, tensor.mean, tensor.square = values, mean, square
        return done


def _batches(shape: tuple[int, ...], passes: int, seed: int) -> list[Tensor]:
    """The windows' numbers, those of each step: all windows once a pass, in an order of its own."""
    windows, length = shape
    random, each = np.random.default_rng(seed), max(1, STEP_TOKENS // length)
    orders = [torch.from_numpy(random.permutation(windows)) for _ in range(passes)]
    return [order[begin : begin + each] for order in orders for begin in range(0, windows, each)]


def _last_activations(model: LanguageModel, windows: Tokens, dtype: torch.dtype) -> Tensor:
    """(windows, tokens, hidden_size), what the head reads."""
    parts: list[Tensor] = []

    def change(site: Site, x: Tensor) -> Tensor:
        if site.layer < 0:
            parts.append(x)
        return x

    for _ in forward(model, windows, change, dtype):
        pass
    with torch.inference_mode(False):
        return torch.cat([part.clone() for part in parts])


def _embedding(student: Student) -> Tensor:
    return torch.from_numpy(student.stored(student.roles()["embedding", -1].name).dequantize())


def _part(tensor: Tensor, place: TensorSlice) -> Tensor:
    """The rows that play a role."""
    return tensor[place.begin : place.end if place.end >= 0 else None]
