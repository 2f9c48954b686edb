"""HQQ's solve against a plain loop over the groups, code for code, and what it minimises."""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt
import pytest

from bitwright.core import QParams, Scheme
from bitwright.fitting import FITTING
from bitwright.fitting.hqq import POWER, hqq
from bitwright.rounding import ROUNDING

Floats = npt.NDArray[np.float32]

SPELLINGS = [
    f"{format}-g{group}{affine}{scale}"
    for format, group, affine, scale in product(("int2", "int3", "int4"), (32, 64), ("", "-affine"), ("", "-sfp32"))
]


def outlying(seed: int = 3) -> Floats:
    random = np.random.default_rng(seed)
    return np.where(random.random((30, 64)) < 0.03, 6, 1).astype(np.float32) * random.standard_normal((30, 64)).astype(np.float32)


def matrices() -> dict[str, Floats]:
    """(rows, 64) weights: with outliers, light in the tails, far from zero, and with zeros."""
    random, sparse = np.random.default_rng(5), np.zeros((2, 64), np.float32)
    sparse[1, ::9] = 0.2
    return {
        "outliers": outlying(4)[:3],
        "even": random.uniform(-0.02, 0.02, (2, 64)).astype(np.float32),
        "skewed": random.gamma(2, 1, (2, 64)).astype(np.float32) - np.float32(0.5),
        "sparse": sparse,
    }


def cost(groups: Floats, params: QParams) -> npt.NDArray[np.float64]:
    zero_point = np.zeros_like(params.scale) if params.zero_point is None else params.zero_point
    levels = np.clip(np.rint(groups / params.scale[:, None]) + zero_point[:, None], -8, 7) - zero_point[:, None]
    return (np.abs(groups - levels * params.scale[:, None]).astype(np.float64) ** POWER).sum(axis=1)


@pytest.mark.parametrize("affine", [False, True])
def test_it_lowers_what_it_minimises(affine: bool) -> None:
    scheme, groups = Scheme("int4", 64, affine, "fp32"), outlying()
    before, after = cost(groups, FITTING["minmax"](groups, scheme)), cost(groups, hqq(groups, scheme))
    assert (after <= before * (1 + 1e-5)).all() and after.sum() < 0.99 * before.sum()


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_it_is_the_half_quadratic_solve_code_for_code(spelling: str) -> None:
    scheme = Scheme.parse(spelling)
    for name, weights in matrices().items():
        found = ROUNDING["nearest"](weights, scheme, hqq)
        groups = weights.reshape(-1, scheme.group)
        grids = [slow_grid(group, scheme) for group in groups]
        codes = [slow_codes(group / scale, whole, scheme) for group, (scale, whole) in zip(groups, grids, strict=True)]
        assert found.params is not None
        assert found.params.scale.tolist() == [scale for scale, _ in grids], name
        assert (found.params.zero_point is not None) == scheme.affine
        if found.params.zero_point is not None:
            assert found.params.zero_point.tolist() == [whole for _, whole in grids], name
        assert found.codes.reshape(-1, scheme.group).tolist() == codes, name


def slow_grid(x: Floats, scheme: Scheme) -> tuple[np.float32, np.float32]:
    """The scale and zero point of one group, (group size,): the steps of hqq.py's docstring one after the other, in float32."""
    scale, zero_point = spanning(x, scheme)
    least, best = np.float32(np.inf), (scale, zero_point)
    for step in range(21):
        whole, scaled = np.rint(zero_point), x / scale
        q = np.array(slow_codes(scaled, whole, scheme), np.float32) + np.float32(lowest(scheme)) - whole
        error = scaled - q
        sum_of_powers = (np.abs(error) ** np.float32(0.7)).sum() * scale ** np.float32(0.7)
        if sum_of_powers < least:
            least, best = sum_of_powers, (scale, whole)
        size = np.maximum(np.abs(error), np.float32(1e-12))
        shrunk = size - size ** np.float32(0.7 - 1) / np.float32(10 * 1.01**step)
        wanted = scaled - np.sign(error) * np.where(shrunk > 0, shrunk, np.float32(0))
        if scheme.affine:
            zero_point = within(zero_point + (q - wanted).sum() / np.float32(len(x)), scheme)
        product, squares = (wanted * q).sum(), (q * q).sum()
        if product != 0 and squares > 0:
            scale = stored(scale * (product / squares), scheme)
    return best


def spanning(x: Floats, scheme: Scheme) -> tuple[np.float32, np.float32]:
    """The min-max grid."""
    low, high, steps = min(x.min(), np.float32(0)), max(x.max(), np.float32(0)), -2 * lowest(scheme) - 1
    if not scheme.affine:
        return stored(max(-low, high) / np.float32(-lowest(scheme) - 1), scheme), np.float32(0)
    scale = stored((high - low) / np.float32(steps), scheme)
    return scale, within(lowest(scheme) - np.rint(low / scale), scheme)


def slow_codes(scaled: Floats, zero_point: np.float32, scheme: Scheme) -> list[int]:
    """Value by value; ties to even, as Python rounds."""
    return [min(max(round(float(value)) + int(zero_point) - lowest(scheme), 0), -2 * lowest(scheme) - 1) for value in scaled]


def within(zero_point: np.float32, scheme: Scheme) -> np.float32:
    return np.float32(min(max(zero_point, lowest(scheme)), -lowest(scheme) - 1))


def lowest(scheme: Scheme) -> int:
    return -(2 ** (int(scheme.format.removeprefix("int")) - 1))


def stored(scale: np.float32, scheme: Scheme) -> np.float32:
    """As fp16 or fp32 holds it, and no smaller than the smallest."""
    if scheme.scale == "fp16":
        return np.float32(np.float16(max(scale, np.float32(2.0**-24))))
    return max(scale, np.float32(2.0**-126))
