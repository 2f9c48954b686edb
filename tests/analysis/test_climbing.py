"""What restoring a tensor brings back is measured truly, and noise alone swaps nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", exc_type=ImportError)

import bitwright
import tiny
from bitwright.analysis.climbing import MOST_TENSORS, Regained, corrections, of_a_kind, regained, weights, worth_restoring
from bitwright.analysis.probe import Probe
from bitwright.core import Recipe
from bitwright.models import load

WINDOWS = np.random.default_rng(5).integers(0, tiny.VOCABULARY, (4, 24)).astype(np.int32)


def test_regained_is_the_loss_less_that_with_the_tensor_restored(tiny_directory: Callable[[str], Path]) -> None:
    model = load(tiny_directory("llama"))
    made = bitwright.quantize(model, Recipe.uniform("int3-g32"))
    matrices = [name for name in model.names() if len(model.shape(name)) == 2]
    groups = [matrices[1:2], matrices[2:3], matrices[1:4]]
    found = regained(model, made, groups, WINDOWS)
    probe, all_changed = Probe(model, WINDOWS), {name: made.read(name) for name in matrices}
    whole = probe.divergence(all_changed)
    for names, brought in zip(groups, found, strict=True):
        back = whole - probe.divergence(all_changed | {name: model.read(name) for name in names})
        assert brought.mean == pytest.approx(back.mean(), abs=1e-6)
        assert brought.variance > 0


def test_ratios_that_noise_explains_change_nothing() -> None:
    random = np.random.default_rng(0)
    foretold = random.uniform(0.5, 2.0, 200)
    noisy = foretold * (1 + 0.5 * random.standard_normal(200))
    found = np.array(weights(foretold, [Regained(m, (0.5 * f) ** 2) for m, f in zip(noisy, foretold, strict=True)]))
    assert np.abs(found - 1).mean() < 0.1 < np.abs(noisy / foretold - 1).mean()


def test_ratios_that_are_sure_are_taken_as_they_are() -> None:
    foretold, truth = [1.0, 1.0, 2.0, 4.0], [0.5, 2.0, 2.0, 3.5]
    found = weights(foretold, [Regained(mean, 1e-9) for mean in truth])
    assert found == pytest.approx([0.5, 2.0, 1.0, 0.875], rel=1e-3)
    assert sum(w * f for w, f in zip(found, foretold, strict=True)) == pytest.approx(sum(foretold))


def test_a_plan_that_lost_nothing_is_left_alone() -> None:
    assert weights([1.0, 2.0], [Regained(-0.1, 1e-4), Regained(-0.2, 1e-4)]) == [1.0, 1.0]


def test_what_a_kind_brings_back_corrects_all_its_tensors_and_one_alone_corrects_itself() -> None:
    foretold, kinds = [1.0, 1.0, 1.0, 1.0, 0.0], of_a_kind(["q", "v", "q", "v", "k"], [1.0, 1.0, 1.0, 1.0, 0.0])
    assert kinds == [[0, 2], [1, 3]]
    sure = [Regained(mean, 1e-9) for mean in (1.0, 3.0, 0.25, 1.75)]  # q is half of what was thought, v one and a half times
    assert corrections(foretold, kinds, [0, 1], sure) == pytest.approx([0.25, 1.75, 0.5, 1.5, 1.0], rel=1e-3)


def test_tensors_of_the_largest_loss_are_restored() -> None:
    found = worth_restoring([0.0, *np.linspace(1, 2, MOST_TENSORS + 5)])
    assert len(found) == MOST_TENSORS and found[0] == MOST_TENSORS + 5 and 0 not in found
