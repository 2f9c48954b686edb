"""Each tensor's part in the loss by estimate, and how far to trust it: attribution.py for models too large to run twice a tensor.

    share  what curvature says that the tensor's error costs, in nats a token: one backward pass for all (allocation/curvature.py)
    trust  Spearman's rank correlation of shares and losses measured alone, over the SAMPLED tensors of a sample

The sample is a Latin square (McKay, Beckman, Conover 1979, Technometrics 21(2)): kinds take turns, and each of SAMPLED equal
parts of the model's depth is aimed at once, at a random place in it. Memory: one probe (probe.py), where measuring takes two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bitwright.allocation.candidates import Unit
from bitwright.allocation.sensitivity import units_of
from bitwright.analysis.attribution import Attribution, Judged, Repair, Share, Tokens, estimates_of, rank_correlation
from bitwright.analysis.probe import Probe
from bitwright.analysis.report.document import WORST
from bitwright.calibration.text import Watch, unwatched
from bitwright.core import Floats
from bitwright.models.base import LanguageModel

SAMPLED, SEED = 12, 0


def attribute_by_estimate(
    model: LanguageModel,
    quantized: LanguageModel,
    windows: Tokens,
    repair: Callable[[str], Floats],
    watch: Watch = unwatched,
) -> Attribution:
    """Estimate every matrix on `windows` (windows, tokens). `repair` gives a tensor as it would be stored with more bits.

    Repairs are foretold, from the sum of all shares as the loss before.
    """
    units = units_of(model)
    with watch("estimating every tensor from one backward pass") as progress:
        losses, repaired = estimates_of(model, [quantized.read, repair], windows, progress)
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
    before = sum(losses.values())
    repairs = [Repair(name, before, before - losses[name] + repaired[name]) for name in (one.tensor for one in shares[:WORST])]
    correlation = rank_correlation([one.measured for one in judged], [one.estimated for one in judged])
    return Attribution(tuple(shares), None, None, (), tuple(repairs), correlation if len(judged) > 1 else None, tuple(judged))


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
