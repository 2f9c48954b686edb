"""What the law tests draw from: schemes of every kind, and matrices that a scheme can be tried on."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from bitwright.core import Scheme
from bitwright.formats import FORMATS
from bitwright.formats.scales import SHARED
from bitwright.formats.table import Table
from bitwright.formats.uniform import Uniform

COLUMNS = 192  # divided by every group below
GROUPS = (-1, 0, 16, 32, 48, 64, 96)

SCALED = tuple(name for name, format in FORMATS.items() if format.scaled)
EVEN = tuple(name for name in SCALED if isinstance(FORMATS[name], Uniform))  # levels one apart
TABLES = tuple(name for name in SCALED if isinstance(FORMATS[name], Table))


def schemes_of(names: tuple[str, ...], groups: tuple[int, ...] = GROUPS) -> list[Scheme]:
    """These formats with all granularities, scale types and, where there are any, zero points. (Tables: fewer scale types.)"""
    return [
        Scheme(name, group, affine, scale)
        for name, group in product(names, groups)
        for affine in ((False, True) if FORMATS[name].affine else (False,))
        for scale in FORMATS[name].scales
        if not FORMATS[name].learned or group in (32, 48)  # slow to fit
        if (scale not in SHARED or (group > 0 and not affine)) and (name in EVEN or scale not in ("fp32", "bf16"))
    ]


def every_scheme(groups: tuple[int, ...] = GROUPS) -> list[Scheme]:
    """All scaled formats."""
    return schemes_of(SCALED, groups)


def fitted_schemes(fittings: Iterable[str]) -> list[tuple[str, Scheme]]:
    """Each fitting with schemes to try it on: those that are searched for with all, those that only clip with some."""
    few = schemes_of(("int8", "int4", "fixed6", "nf4"), (-1, 0))
    return [
        (name, scheme)
        for name in fittings
        for scheme in (every_scheme((-1, 0, 32)) if name in ("minmax", "mse") else [s for s in few if s.scale != "bf16"])
    ]


def own_scale_schemes(groups: tuple[int, ...] = GROUPS) -> list[Scheme]:
    """Even levels, and groups that share nothing: every scale is a number of its own."""
    return [scheme for scheme in schemes_of(EVEN, groups) if scheme.scale not in SHARED]


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
        ("huge", normal * np.float32(1e4)),
    ]


schemes = st.sampled_from(every_scheme())
even_schemes = st.sampled_from(schemes_of(EVEN))
own_scales = st.sampled_from(own_scale_schemes())
seeds = st.integers(0, 2**32 - 1)
