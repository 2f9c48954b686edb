"""The loss that one backward pass foretells is the loss that a changed matrix has, for every role."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", exc_type=ImportError)

import torch

import tiny
from bitwright.allocation import curvature as module
from bitwright.allocation.candidates import Offer, choices_for, sampled_rows
from bitwright.allocation.curvature import Curvature, curvatures
from bitwright.allocation.sensitivity import sensitivities
from bitwright.allocation.ways import Way
from bitwright.analysis.attribution import rank_correlation
from bitwright.analysis.probe import Probe
from bitwright.calibration.sequential import part_of
from bitwright.core import Scheme
from bitwright.models import load

WINDOWS = np.random.default_rng(1).integers(0, tiny.VOCABULARY, (32, 32)).astype(np.int32)
NOISE = 0.02


@pytest.fixture(autouse=True)
def exact_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "product_dtype", lambda: torch.float32)


@pytest.mark.parametrize("case", ["llama", "gemma2"])
def test_foretold_and_measured_loss_of_random_errors(case: str, tiny_directory: Callable[[str], Path]) -> None:
    names = [name for name in tiny.FAMILY_CASES if name.startswith(case)]
    model = load(tiny_directory(names[0]))
    probe, roles, random = Probe(model, WINDOWS), model.roles(), np.random.default_rng(2)
    foretold, measured = [], []
    for role, layer, curvature in curvatures(model, WINDOWS):
        place = roles[role, layer]
        if roles["head", -1].name == roles["embedding", -1].name == place.name:
            continue  # one tensor in two roles: neither can be changed alone
        weights = model.read(place.name)
        error = NOISE * weights.std() * random.standard_normal(weights.shape).astype(np.float32)
        measured.append(probe.divergence({place.name: weights + error}).mean())
        foretold.append(np.mean([cost.sum() for cost in curvature.divergence(part_of(error, place))]))
    ratios = np.array(foretold) / np.array(measured)
    assert len(ratios) >= 14 and (ratios > 0.4).all() and (ratios < 2.5).all(), ratios
    assert rank_correlation(foretold, measured) > 0.8


def test_sampled_rows_stand_for_all() -> None:
    random = np.random.default_rng(3)
    curvature = Curvature(random.uniform(0.5, 1.5, 4096).astype(np.float32), (np.ones(8, np.float32),) * 2, None)
    rows, share = sampled_rows(curvature, 64)
    assert len(rows) == len(set(rows)) < 4096
    assert float((share * curvature.rows[rows]).sum()) == pytest.approx(float(curvature.rows.sum()), rel=1e-4)


def test_sensitivities_are_kept_and_read_again(
    tiny_directory: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITWRIGHT_CACHE", str(tmp_path))
    model, schemes = load(tiny_directory("llama")), tuple(map(Scheme.parse, ("int3-g32", "int4-g32", "int8-channel")))
    offer = Offer(schemes, (Way("gptq"),))
    found = sensitivities(model, WINDOWS, offer)
    monkeypatch.setattr("bitwright.allocation.sensitivity.curvatures", None)  # not needed any more
    assert sensitivities(model, WINDOWS, offer) == found
    for unit in found:
        assert [c.choice for c in unit.candidates] == choices_for(unit, offer)
        losses = [candidate.divergence for candidate in unit.candidates]
        assert losses == sorted(losses, reverse=True) and losses[-1] > 0
        assert [c.bits for c in unit.candidates] == [scheme.stored_bits(unit.shape) for scheme in schemes]
