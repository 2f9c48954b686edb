"""HQQ's solve against a plain loop over the groups, and what it minimises."""

from __future__ import annotations

import numpy as np
import pytest

from bitwright.core import QParams, Scheme
from bitwright.fitting import FITTING
from bitwright.fitting.hqq import BETA, GROWTH, POWER, STEPS, hqq


def outlying(seed: int = 3) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.where(random.random((30, 64)) < 0.03, 6, 1).astype(np.float32) * random.standard_normal((30, 64)).astype(np.float32)


def cost(groups: np.ndarray, params: QParams) -> np.ndarray:
    zero_point = np.zeros_like(params.scale) if params.zero_point is None else params.zero_point
    levels = np.clip(np.rint(groups / params.scale[:, None]) + zero_point[:, None], -8, 7) - zero_point[:, None]
    return (np.abs(groups - levels * params.scale[:, None]).astype(np.float64) ** POWER).sum(axis=1)


@pytest.mark.parametrize("affine", [False, True])
def test_it_lowers_what_it_minimises(affine: bool) -> None:
    scheme, groups = Scheme("int4", 64, affine, "fp32"), outlying()
    before, after = cost(groups, FITTING["minmax"](groups, scheme)), cost(groups, hqq(groups, scheme))
    assert (after <= before * (1 + 1e-5)).all() and after.sum() < 0.99 * before.sum()


@pytest.mark.parametrize("affine", [False, True])
def test_it_is_the_half_quadratic_solve(affine: bool) -> None:
    """The published steps, group by group, in double precision."""
    scheme, groups = Scheme("int4", 64, affine, "fp32"), outlying(4)
    found, start = hqq(groups, scheme), FITTING["minmax"](groups, scheme)
    for g, x in enumerate(groups.astype(np.float64)):
        scale, zero_point = float(start.scale[g]), 0.0 if start.zero_point is None else float(start.zero_point[g])
        seen = []
        for step in range(STEPS + 1):
            whole = float(np.clip(np.rint(zero_point), -8, 7))
            levels = np.clip(np.rint(x / scale) + whole, -8, 7) - whole
            error = x / scale - levels
            seen.append(float((np.abs(error * scale) ** POWER).sum()))
            size = np.maximum(np.abs(error), 1e-12)
            wanted = x / scale - np.sign(error) * np.maximum(0, size - size ** (POWER - 1) / (BETA * GROWTH**step))
            zero_point += float(np.mean(levels - wanted)) if affine else 0.0
            scale *= float((wanted * levels).sum() / (levels**2).sum())
        assert cost(groups, found)[g] == pytest.approx(min(seen), rel=1e-3)
