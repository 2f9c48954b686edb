"""Each tensor's part in the loss by estimate, and how far to trust it: attribution.py for models too large to run twice a tensor.

    share  what curvature says that the tensor's error costs, in nats a token: one backward pass for all (allocation/curvature.py)
    trust  Spearman's rank correlation of shares and losses measured alone, over the SAMPLED tensors of a sample

The sample is a Latin square (McKay, Beckman, Conover 1979, Technometrics 21(2)): kinds take turns, and each of SAMPLED equal
parts of the model's depth is aimed at once, at a random place in it. Memory: one probe (probe.py), where measuring takes two, and
before it the curvatures of the WORST tensors, from which their repairs are foretold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from bitwright.allocation.candidates import Offer, Unit
from bitwright.allocation.curvature import Curvature, curvatures
from bitwright.allocation.sensitivity import known_sensitivities, sensed, units_of
from bitwright.analysis.attribution import Attribution, Judged, Repair, Share, Tokens, estimate_of, rank_correlation
from bitwright.analysis.frontiers import offer_beside
from bitwright.analysis.probe import Probe
from bitwright.analysis.report.document import WORST
from bitwright.calibration.text import Watch, unwatched
from bitwright.core import Floats
from bitwright.models.architecture import TensorSlice
from bitwright.models.base import LanguageModel
from bitwright.quantization import QuantizedModel

SAMPLED, SEED = 12, 0


def attribute_by_estimate(
    model: LanguageModel,
    quantized: QuantizedModel,
    windows: Tokens,
    repair: Callable[[str], Floats],
    watch: Watch = unwatched,
) -> Attribution:
    """Estimate every matrix on `windows` (windows, tokens). `repair` gives a tensor as it would be stored with more bits.

    Repairs are foretold, from the sum of all shares as the loss before.
    """
    units = units_of(model)
    losses, costliest = dict.fromkeys((unit.name for unit in units), 0.0), _Costliest(model.roles()["embedding", -1].name)
    with watch("estimating every tensor from one backward pass") as progress:
        offer = offer_beside(quantized, [unit.name for unit in units])
        for place, curvature in _parts(model, windows, offer, progress):
            losses[place.name] += estimate_of(model, quantized.read(place.name), place, curvature)
            costliest.add(place, curvature, losses)
    sample = spread([unit for unit in units if losses[unit.name] > 0], model.architecture.layers)
    judged = []
    with watch("measuring a sample of tensors") as progress:
        probe = Probe(model, windows) if sample else None
        for done, unit in enumerate(sample):
            assert probe is not None
            measured = float(probe.divergence({unit.name: quantized.read(unit.name)}).mean())
            judged.append(Judged(unit.name, losses[unit.name], measured))
            progress(done + 1, len(sample))
    shares = [Share(unit.name, unit.kind, unit.layer, None, None, None, losses[unit.name]) for unit in units]
    shares.sort(key=lambda share: -share.cost)
    before, repairs = sum(losses.values()), []
    for name in [share.tensor for share in shares[:WORST] if share.cost > 0]:
        better = repair(name)
        after = sum(estimate_of(model, better, *part) for part in costliest.parts[name])
        repairs.append(Repair(name, before, before - losses[name] + after))
    correlation = rank_correlation([one.measured for one in judged], [one.estimated for one in judged])
    return Attribution(tuple(shares), None, None, (), tuple(repairs), correlation if len(judged) > 1 else None, tuple(judged))


def _parts(
    model: LanguageModel, windows: Tokens, offer: Offer, progress: Callable[[int, int], None]
) -> Iterator[tuple[TensorSlice, Curvature]]:
    """What plays one role, with its curvature. The same pass judges what is on offer, for frontiers.py, if the cache lacks it."""
    if known_sensitivities(model, windows, offer) is None:
        yield from sensed(model, windows, offer, units_of(model, in_blocks=True), progress)
        return
    roles = model.roles()
    for role, layer, curvature in curvatures(model, windows, progress=progress):
        yield roles[role, layer], curvature


class _Costliest:
    """The tensors that cost most of those that were estimated so far, each with its parts and their curvatures; and those that
    may have parts to come: the last one, and the one that is looked up, which may be the head as well.
    """

    def __init__(self, looked_up: str) -> None:
        self.looked_up, self.parts = looked_up, dict[str, list[tuple[TensorSlice, Curvature]]]()

    def add(self, place: TensorSlice, curvature: Curvature, losses: Mapping[str, float]) -> None:
        self.parts.setdefault(place.name, []).append((place, replace(curvature, inputs=None)))
        whole = self.parts.keys() - {place.name, self.looked_up}
        for name in sorted(whole, key=lambda name: -losses[name])[WORST:]:
            del self.parts[name]


def spread(units: Sequence[Unit], layers: int, count: int = SAMPLED) -> list[Unit]:
    """`count` of the units, or all where there are fewer, over all kinds and depths; the same every time.

    `layers` is how many blocks the model has; what lies outside them has no depth and is taken when its kind has its turn.
    """
    random = np.random.default_rng(SEED)
    kinds: dict[str, list[Unit]] = {}
    for unit in units:
        kinds.setdefault(unit.kind, []).append(unit)
    turns = [list(kinds.values())[turn] for turn in random.permutation(len(kinds))]
    rounds = [group for step in range(count) for group in turns if step < len(group)]
    depths = (random.permutation(count) + random.random(count)) / count * layers
    chosen: list[Unit] = []
    for depth, group in zip(depths, rounds, strict=False):
        left = [unit for unit in group if unit not in chosen]
        chosen.append(min(left, key=lambda unit: abs(unit.layer + 0.5 - depth)))
    return chosen
