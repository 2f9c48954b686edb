"""A forward pass in which the inputs of all layers are rounded as a kind says, in float: fake quantization.

    x -> s * round(clip(x / s)),   s = largest / L,   L the format's largest level

It shows what a kind of activations costs where no kernel runs it. Weights are those of the model as stored; products, attention
and the KV cache are float32, and the head's input stays as it is. Inputs of layers with rotated columns are rounded as
the engine would: after the rotation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bitwright.activations.kind import LARGEST, Kind
from bitwright.activations.ranges import AVERAGE, RANGES
from bitwright.calibration.forward import Site, forward
from bitwright.errors import SchemeError
from bitwright.formats.hadamard import rotate
from bitwright.models.base import LanguageModel, Packed
from bitwright.observers.histogram import Histogram
from bitwright.observers.minmax import MinMax
from bitwright.observers.moving_average import MovingAverage

Floats = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]
Scales = Mapping[Site, Tensor]  # of a static kind: largest values, one or one a channel
Observer = Histogram | MinMax | MovingAverage

SMALLEST = 1e-12  # of a largest value
STRIDE = 15  # one token in so many is counted: odd, so that it does not meet the first token of every window, or of none


def hidden_states(model: LanguageModel, windows: Sequence[Tokens], kind: Kind, calibration: Tokens | None) -> Iterator[Floats]:
    """(tokens, hidden_size) of each window in turn, after the final norm. `calibration` windows are for static kinds.

    Raises `SchemeError` for a group that does not divide a layer's input.
    """
    turns = Turns(model)
    scales = static_scales(model, turns, kind, calibration) if kind.static and calibration is not None else {}
    done: dict[int, Floats] = {}
    for length in dict.fromkeys(map(len, windows)):
        indices = [index for index, window in enumerate(windows) if len(window) == length]
        found = _run(model, np.stack([windows[index] for index in indices]), Rounding(turns, kind, scales))
        done |= dict(zip(indices, found, strict=True))
    for index in range(len(windows)):
        yield done.pop(index)


def _run(model: LanguageModel, windows: Tokens, rounding: Rounding) -> Floats:
    """(windows, tokens, hidden_size)."""
    found: list[Floats] = []

    def change(site: Site, x: Tensor) -> Tensor:
        if site.layer < 0:
            found.append(x.numpy().astype(np.float32))
            return x
        return rounding.rounded(site, x)

    for _ in forward(model, windows, change, torch.float32):
        pass
    return np.concatenate(found)


class Turns:
    """The rotation of each input's channels that the stored codes ask for."""

    def __init__(self, model: LanguageModel) -> None:
        self._model, self._roles = model, model.roles()
        self._blocks: dict[Site, int] = {}

    def __call__(self, site: Site, x: Tensor) -> Tensor:
        """Into the channels that are rounded, or back from them: the rotation is its own inverse."""
        if site not in self._blocks:
            stored = [self._model.stored(self._roles[role, site.layer].name) for role in site.roles]
            blocks = {tensor.rotation if isinstance(tensor, Packed) else 0 for tensor in stored}
            if len(blocks) > 1:
                raise SchemeError(
                    f"{', '.join(site.roles)} of layer {site.layer} read one input, some of them rotated; rotate all"
                )
            self._blocks[site] = blocks.pop()
        block = self._blocks[site]
        return x if block == 0 else torch.from_numpy(rotate(x.numpy(), block))


@dataclass(frozen=True)
class Rounding:
    """What happens to an input."""

    turns: Turns
    kind: Kind
    scales: Scales = field(default_factory=dict)

    def rounded(self, site: Site, x: Tensor) -> Tensor:
        """(windows, tokens, columns), of the same shape."""
        turned, group = self.turns(site, x), self.kind.group
        if self.kind.static:
            if site not in self.scales:  # an expert's
                raise SchemeError(
                    f"{', '.join(site.roles)} of layer {site.layer}: no calibration token came to this expert, so its inputs "
                    "have no scale; calibrate on more text, or use a dynamic kind of activations"
                )
            return self.turns(site, fake(turned, self.scales[site], self.kind.format))
        if group and x.shape[-1] % group:
            raise SchemeError(f"activations {self.kind.spelling}: {group} does not divide an input of {x.shape[-1]} channels")
        grouped = turned.reshape(*x.shape[:-1], -1, group or x.shape[-1])
        result = fake(grouped, grouped.abs().amax(-1, keepdim=True), self.kind.format)
        return self.turns(site, result.flatten(-2))


def fake(x: Tensor, largest: Tensor, format: str) -> Tensor:
    """X rounded to a format that is scaled so that `largest` is its largest level; ties to even."""
    scale, limit = largest.clamp_min(SMALLEST) / LARGEST[format], LARGEST[format]
    scaled = (x / scale).clamp(-limit, limit)
    return (scaled.to(torch.float8_e4m3fn).to(x.dtype) if format == "fp8" else scaled.round()) * scale


def static_scales(model: LanguageModel, turns: Turns, kind: Kind, windows: Tokens) -> Scales:
    """The largest value of each input, or of each of its channels, on calibration text.

    Shapes of distributions are read from one token in `STRIDE`; largest values from all. Of a moving average a window is a batch.
    """
    seen: dict[Site, Observer] = {}
    tokens: Counter[Site] = Counter()
    stride = 1 if kind.scales == "channel" or kind.range in ("minmax", AVERAGE) else STRIDE

    def change(site: Site, x: Tensor) -> Tensor:
        if site.layer >= 0:
            rows = x.flatten(0, 1)
            counted = turns(site, rows[-tokens[site] % stride :: stride]).float().numpy()
            observer = seen.setdefault(site, _observer(kind, rows.shape[1]))
            for batch in np.split(counted, len(x)) if kind.range == AVERAGE else [counted]:
                observer.update(batch)
            tokens[site] += len(rows)
        return x

    for _ in forward(model, windows, change, torch.float32):
        pass
    return {site: _largest(observer, kind) for site, observer in seen.items()}


def _observer(kind: Kind, columns: int) -> Observer:
    if kind.scales == "channel":
        return MinMax(columns)
    return MovingAverage() if kind.range == AVERAGE else Histogram()


def _largest(observer: Observer, kind: Kind) -> Tensor:
    if isinstance(observer, MinMax):
        return torch.from_numpy(np.maximum(-observer.low, observer.high))
    if isinstance(observer, MovingAverage):
        low, high = observer.range
        return torch.tensor(max(-low, high), dtype=torch.float32)

    def round(values: npt.NDArray[np.float64], largest: float) -> npt.NDArray[np.float64]:
        return fake(torch.from_numpy(values), torch.tensor(largest, dtype=torch.float64), kind.format).numpy()

    return torch.tensor(RANGES[kind.range](observer, round, int(LARGEST[kind.format]) + 1), dtype=torch.float32)
