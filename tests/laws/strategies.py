"""What the law tests draw from: schemes of every kind, and matrices that a scheme can be tried on."""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from bitwright.core import SCALE_BITS, Scheme
from bitwright.formats import FORMATS

COLUMNS = 192  # divided by every group below
GROUPS = (-1, 0, 16, 32, 48, 64, 96)

SCALED = tuple(name for name, format in FORMATS.items() if format.scaled)


def scales_of(name: str, group: int, affine: bool) -> tuple[str, ...]:
    """Scale types that this format can have."""
    if name.startswith("fixed"):
        return ("pow2",)
    shared = name in ("int2", "int3", "int4") and group > 0 and not affine
    return tuple(kind for kind in SCALE_BITS if kind != "pow2" and (shared or kind != "row5"))


def every_scheme(groups: tuple[int, ...] = GROUPS) -> list[Scheme]:
    """All scaled formats with all granularities, scale types and, where there are any, zero points."""
    return [
        Scheme(name, group, affine, scale)
        for name, group in product(SCALED, groups)
        for affine in ((False, True) if name.startswith("int") else (False,))
        for scale in scales_of(name, group, affine)
    ]


def own_scale_schemes(groups: tuple[int, ...] = GROUPS) -> list[Scheme]:
    """Those whose groups share nothing: every scale is a number of its own."""
    return [scheme for scheme in every_scheme(groups) if scheme.scale != "row5"]


def matrices(rows: int = 6, columns: int = COLUMNS) -> list[tuple[str, npt.NDArray[np.float32]]]:
    """Named weights that have broken quantizers before: skewed, one-sided, tiny, huge, constant, with outliers and zeros."""
    random = np.random.default_rng(7)
    normal = random.standard_normal((rows, columns)).astype(np.float32)
    outliers = normal.copy()
    outliers[:, ::31] *= 40
    sparse = np.where(random.random((rows, columns)) < 0.7, 0, normal).astype(np.float32)
    halved = normal.copy()
    halved[::2] = 0  # whole rows and groups of zeros
    return [
        ("normal", normal),
        ("outliers", outliers),
        ("sparse", sparse),
        ("zero rows", halved),
        ("zeros", np.zeros_like(normal)),
        ("positive", np.abs(normal) + np.float32(0.5)),
        ("negative", -np.abs(normal) - np.float32(0.5)),
        ("constant", np.full_like(normal, 0.3)),
        ("tiny", normal * np.float32(1e-6)),
        ("below fp16", normal * np.float32(1e-12)),
        ("huge", normal * np.float32(2e4)),
    ]


schemes = st.sampled_from(every_scheme())
own_scales = st.sampled_from(own_scale_schemes())
seeds = st.integers(0, 2**32 - 1)
