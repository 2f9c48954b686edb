"""Which tensor costs what, in nats a token of the final answer, measured one at a time; estimation.py only estimates it.

    alone       the loss when only this tensor is quantized        regained  what comes back when only this one is restored
    cumulative  the loss when the first k blocks are quantized     together  the loss of the whole

If losses added up, alone would equal regained and their sum the whole. How far they do is said beside them, and how well the
estimate of allocation/curvature.py, which costs one backward pass in place of two measurements a tensor, orders them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bitwright.allocation.curvature import Curvature, curvatures
from bitwright.allocation.sensitivity import units_of
from bitwright.analysis.probe import Probe
from bitwright.analysis.report.document import WORST
from bitwright.analysis.significance import percentile_interval, resample, units_of_windows
from bitwright.calibration.sequential import part_of
from bitwright.calibration.text import Watch, unwatched
from bitwright.core import Floats
from bitwright.models.architecture import TensorSlice
from bitwright.models.base import LanguageModel

Doubles = npt.NDArray[np.float64]
Tokens = npt.NDArray[np.int32]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Share:
    """One tensor's part in the loss, in nats a token; see the module. What is None was not measured."""

    tensor: str
    kind: str
    layer: int
    alone: float | None
    alone_interval: Interval | None
    regained: float | None
    estimated: float

    @property
    def cost(self) -> float:
        """Its loss alone as measured, or as estimated where it was not measured."""
        return self.estimated if self.alone is None else self.alone


@dataclass(frozen=True)
class Repair:
    """What the whole model loses, in nats a token, before and after one tensor is stored otherwise."""

    tensor: str
    before: float
    after: float


@dataclass(frozen=True)
class Judged:
    """A tensor's loss alone, in nats a token, as estimated and as measured."""

    tensor: str
    estimated: float
    measured: float


@dataclass(frozen=True)
class Attribution:
    """All shares, worst first. `together` and what follows from whole runs is None or empty where shares are estimated.

    `rank_correlation` is Spearman's of estimated and measured losses alone: of all tensors, or of the `sample` where only its
    tensors were measured; None of fewer than two.
    """

    shares: tuple[Share, ...]
    together: float | None
    together_interval: Interval | None
    cumulative: tuple[float, ...]
    repairs: tuple[Repair, ...]
    rank_correlation: float | None
    sample: tuple[Judged, ...] = ()

    @property
    def measured(self) -> bool:
        """Whether shares are, rather than estimated."""
        return self.together is not None

    @property
    def sum_of_parts(self) -> float:
        return sum(share.cost for share in self.shares)


def attribute(
    model: LanguageModel,
    quantized: LanguageModel,
    windows: Tokens,
    repair: Callable[[str], Floats] | None = None,
    watch: Watch = unwatched,
) -> Attribution:
    """Measure every matrix on `windows` (windows, tokens). `repair` gives a tensor as it would be stored with more bits."""
    units = units_of(model)
    names = [unit.name for unit in units]
    draws = resample(units_of_windows([windows.shape[1]] * len(windows)))
    with watch("running the model and its quantized form") as progress:
        original = Probe(model, windows)
        progress(1, 2)
        lossy = Probe(model, windows, _reading(model, quantized, names), original.reference)
        whole = lossy.divergence({})
    alone, regained = {}, {}
    with watch("quantizing one tensor at a time") as progress:
        for done, name in enumerate(names):
            alone[name] = original.divergence({name: quantized.read(name)})
            progress(done + 1, len(names))
    with watch("restoring one tensor at a time") as progress:
        for done, name in enumerate(names):
            regained[name] = float(whole.mean() - lossy.divergence({name: model.read(name)}).mean())
            progress(done + 1, len(names))
    with watch("quantizing block after block") as progress:
        cumulative = original.cumulative({name: quantized.read(name) for name in names})
    with watch("estimating the same from one backward pass") as progress:
        estimates = estimated(model, quantized, windows, progress)
    shares = [
        Share(
            unit.name,
            unit.kind,
            unit.layer,
            float(alone[unit.name].mean()),
            percentile_interval(draws.means(alone[unit.name])),
            regained[unit.name],
            estimates[unit.name],
        )
        for unit in units
    ]
    shares.sort(key=lambda share: -share.cost)
    repairs = []
    if repair is not None:
        with watch("trying repairs of the worst tensors") as progress:
            for done, share in enumerate(shares[:WORST]):
                after = float(lossy.divergence({share.tensor: repair(share.tensor)}).mean())
                repairs.append(Repair(share.tensor, float(whole.mean()), after))
                progress(done + 1, len(shares[:WORST]))
    correlation = rank_correlation([share.cost for share in shares], [share.estimated for share in shares])
    interval = percentile_interval(draws.means(whole))
    return Attribution(tuple(shares), float(whole.mean()), interval, tuple(cumulative), tuple(repairs), correlation)


def estimated(
    model: LanguageModel, quantized: LanguageModel, windows: Tokens, progress: Callable[[int, int], None] | None = None
) -> dict[str, float]:
    """The loss of each tensor's error by curvature, in nats a token, without measuring any of them."""
    losses, roles = dict.fromkeys((unit.name for unit in units_of(model)), 0.0), model.roles()
    for role, layer, curvature in curvatures(model, windows, progress=progress):
        place = roles[role, layer]
        losses[place.name] += estimate_of(model, quantized.read(place.name), place, curvature)
    return losses


def estimate_of(model: LanguageModel, stored: Floats, place: TensorSlice, curvature: Curvature) -> float:
    """The same of the part of a tensor that plays one role, were the tensor `stored` so."""
    costs = curvature.divergence(part_of(stored, place) - part_of(model.read(place.name), place))
    return float(np.mean([cost.sum(dtype=np.float64) for cost in costs]))


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's, without correction for ties."""
    ranks = [np.argsort(np.argsort(values)) for values in (a, b)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1]) if len(a) > 1 else 1.0


def _reading(model: LanguageModel, quantized: LanguageModel, names: Sequence[str]) -> Callable[[str], Floats]:
    """Matrices as quantized, vectors as they were."""
    return lambda name: (quantized if name in names else model).read(name)
