"""Scales and learned levels of least error for codes that stay: least squares over all groups of a row, or all levels, at once.

With levels z (zero points taken off) a row's error is (V - w) H (V - w)^T, V_i = s_g z_i, or s N s^T - 2 b s^T + w H w^T for

    N_gh = sum over i in g, j in h of z_i H_ij z_j,    b_g = sum over i in g of z_i (H w)_i,    best where N s = b

as in the LNQ of GuidedQuant (arXiv:2505.07004), there for tables. Scales of `row5`, multiples m_g of one scale r a row, come from
there by coordinate descent: m_g <- the multiple nearest to (b_g - r sum over h != g of N_gh m_h) / (r N_gg), for the r at hand
and some around max|s| / 15; then r <- (m b) / (m N m). The row keeps the best, its old scales among them.

The levels t of a learned table solve the same equations, z being the scales of the weights that have a level, and 0 elsewhere.
Of a table that serves many rows, the sums go over all of them. The level 0 stays, so that zeros remain zeros.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitwright.errors import SchemeError
from bitwright.fitting.shared_scales import FACTORS
from bitwright.formats import FORMATS
from bitwright.formats.scales import LARGEST_MULTIPLE, round_scale
from bitwright.formats.table import WHOLE, Table
from bitwright.rounding.grids import Codes, Grids

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

REFITTED_SCALES = ("fp32", "fp16", "bf16")  # types whose every value can be chosen by itself
SWEEPS = 2  # of coordinate descent over a row's multiples
ENOUGH = 1 << 17  # weights to learn one table from; of more, every so many rows are taken


def refitted(weights: Floats, grids: Grids, codes: Codes, gram: Floats) -> Grids:
    """The scales of least error for these codes, as far as the scheme lets each row's be chosen by itself."""
    kind = grids.scheme.scale
    if kind not in (*REFITTED_SCALES, "row5") or grids.scheme.group == -1:
        return grids
    normal, wanted = equations(weights, grids, codes, gram)
    small = 1e-6 * np.einsum("rgg->rg", normal).max(axis=1) + 1e-30  # a group of zeros only leaves its scale open
    normal += small[:, None, None] * np.eye(normal.shape[1])
    wanted += small[:, None] * grids.scale  # ... where it is
    scale = np.linalg.solve(normal, wanted[..., None]).squeeze(-1).astype(np.float64)
    try:
        if kind == "row5":
            return multiples(normal, wanted, scale, grids)
        rounded = round_scale(scale.astype(np.float32).reshape(-1), kind).reshape(scale.shape)
    except SchemeError:  # beyond fp16: the fitted scales are not
        return grids
    return grids.with_scale(rounded)


def equations(weights: Floats, grids: Grids, codes: Codes, gram: Floats) -> tuple[Doubles, Doubles]:
    """N (rows, groups, groups) and b (rows, groups)."""
    levels = grids.levels(codes)
    rows, groups = grids.scale.shape
    size = weights.shape[1] // groups
    normal = np.empty((rows, groups, groups))
    for g in range(groups):
        part = slice(g * size, (g + 1) * size)
        reached = (levels[:, part] @ gram[part]) * levels
        normal[:, g] = reached.reshape(rows, groups, size).sum(axis=2, dtype=np.float64)
    wanted = ((weights @ gram) * levels).reshape(rows, groups, size).sum(axis=2, dtype=np.float64)
    return normal, wanted


def multiples(normal: Doubles, wanted: Doubles, ideal: Doubles, grids: Grids) -> Grids:
    """The best multiples of one scale for each row. Raises `SchemeError` where a row's scale is beyond fp16."""
    old, row_scale = grids.scale.astype(np.float64), grids.params.row_scale
    assert row_scale is not None
    least, best, kept = row_error(normal, wanted, old), old.copy(), row_scale.copy()
    top = np.abs(ideal).max(axis=1).astype(np.float32) / np.float32(LARGEST_MULTIPLE)
    for start in (row_scale, *(round_scale(top * np.float32(factor), "row5") for factor in FACTORS)):
        whole = descended(normal, wanted, nearest_multiple(ideal / start[:, None]), start)
        size = np.einsum("rg,rgh,rh->r", whole, normal, whole)
        refit = (whole * wanted).sum(axis=1) / np.where(size > 0, size, 1)
        refit = np.where(refit > 0, refit, start).astype(np.float32)
        for shared in (start, round_scale(refit, "row5")):
            scale = whole * shared[:, None].astype(np.float64)
            error = row_error(normal, wanted, scale)
            better = error < least
            least[better], best[better], kept[better] = error[better], scale[better], shared[better]
    return grids.with_scale(best.astype(np.float32), kept)


def row_error(normal: Doubles, wanted: Doubles, scale: Doubles) -> Doubles:
    """(rows,) errors of these scales, less what no scale changes."""
    error: Doubles = np.einsum("rg,rgh,rh->r", scale, normal, scale, optimize=True) - 2 * (wanted * scale).sum(axis=1)
    return error


def nearest_multiple(x: Doubles) -> Doubles:
    """Whole numbers from 1 to 15, or from -15 to -1 where x is negative."""
    whole: Doubles = np.copysign(np.clip(np.rint(np.abs(x)), 1, LARGEST_MULTIPLE), x)
    return whole


def descended(normal: Doubles, wanted: Doubles, whole: Doubles, row_scale: Floats) -> Doubles:
    """Multiples of each row's scale, of which hardly one can be bettered with the others where they are."""
    shared, whole = row_scale.astype(np.float64), whole.copy()
    for _ in range(SWEEPS):
        for g in range(whole.shape[1]):
            reached = np.einsum("rh,rh->r", normal[:, g], whole) - normal[:, g, g] * whole[:, g]
            whole[:, g] = nearest_multiple((wanted[:, g] / shared - reached) / normal[:, g, g])
    return whole


def relearned(weights: Floats, grids: Grids, codes: Codes, gram: Floats) -> Grids:
    """The levels of least error for these codes and scales, where a tensor's or its rows' levels are free."""
    format, table = FORMATS[grids.scheme.format], grids.params.table
    if not isinstance(format, Table) or table is None or format.learner != "kmeans" or format.learned == "group":
        return grids
    step = max(1, weights.size // ENOUGH) if len(table) == 1 else 1
    normal, wanted = level_equations(weights[::step], grids.of_rows(step), codes[::step], gram)
    small = 1e-6 * np.einsum("tkk->tk", normal).max(axis=1)[:, None] + 1e-30  # nobody may have a level
    normal += small[..., None] * np.eye(normal.shape[1])
    wanted += small * table
    levels = np.zeros_like(wanted)
    for t, zero in enumerate(np.abs(table).argmin(axis=1)):
        free = np.arange(table.shape[1]) != zero
        levels[t, free] = np.linalg.solve(normal[t][np.ix_(free, free)], wanted[t, free])
    count, new = grids.scheme.levels or table.shape[1], np.clip(np.rint(levels), -WHOLE, WHOLE)
    new[:, count:] = new[:, count - 1 : count]  # places that no code names
    sound = (np.diff(new[:, :count], axis=1) > 0).all(axis=1, keepdims=True)
    return grids.with_table(np.where(sound, new, table).astype(np.float32))


def level_equations(weights: Floats, grids: Grids, codes: Codes, gram: Floats) -> tuple[Doubles, Doubles]:
    """N (tables, levels, levels) and b (tables, levels)."""
    assert grids.params.table is not None
    tables, count = grids.params.table.shape
    scale = grids.scale[:, grids.group_of]
    place = (np.arange(len(weights)) * tables // len(weights))[:, None] * count + codes  # of a weight's level among all tables'

    def by_level(x: Floats) -> Doubles:
        sums = np.bincount(place.ravel(), weights=(x * scale).ravel(), minlength=tables * count)
        return sums.astype(np.float64).reshape(tables, count)

    normal = np.empty((tables, count, count))
    for k in range(count):
        normal[:, k] = by_level((scale * (codes == k)) @ gram)
    return normal, by_level(weights @ gram)
