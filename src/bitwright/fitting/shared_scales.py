"""Scales that are multiples of a shared one: from a group's own best scale s to what can be stored, by true squared error.

`row5`: m * r, m a whole number from -15 to 15, r one fp16 scale a row. For several r around max|s| / 15 every group takes the
better of the two multiples next to s / r, and the row keeps the r of least error in all. m is never 0: a group of zeros
needs a scale like any other.

`e4m3`: f * t, f an fp8 number, t one fp32 scale for the tensor, max s / 448 as in NVFP4, where s spans the group; each group
takes the best of the fp8 numbers from one above s / t to six below, which is about half of it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bitwright.core import QParams
from bitwright.fitting.measure import Measure
from bitwright.formats.scales import E4M3, LARGEST_MULTIPLE, round_scale

# Row scales that are tried, over max|s| / 15: below 1 the largest scales are cut off, above 1 the top multiples go unused.
FACTORS = (0.86, 0.9, 0.94, 0.97, 1.0, 1.04, 1.08, 1.12)
LARGEST_CODE = 126  # of a positive e4m3 number; 127 is NaN

Floats = npt.NDArray[np.float32]


def multiples_of_rows(groups: Floats, ideal: Floats, measure: Measure) -> QParams:
    """(groups, group size) weights and (groups,) scales -> the multiples of one scale for each row.

    Raises `SchemeError` where a row's scale is beyond fp16.
    """
    rows = measure.shape[0]
    by_row = ideal.reshape(rows, -1)
    top = np.abs(by_row).max(axis=1) / np.float32(LARGEST_MULTIPLE)
    least = np.full(rows, np.inf)
    row_scale, scale = np.ones(rows, np.float32), np.ones_like(by_row)
    for factor in FACTORS:
        candidate = round_scale(top * np.float32(factor), "row5")
        below = np.floor(np.abs(by_row) / candidate[:, None])
        tried = [np.clip(multiple, 1, LARGEST_MULTIPLE) * candidate[:, None] for multiple in (below, below + 1)]
        error, chosen = best_of(groups, [np.copysign(one, by_row).reshape(-1) for one in tried], measure)
        total = error.reshape(rows, -1).sum(axis=1, dtype=np.float64)
        better = total < least
        least[better], row_scale[better], scale[better] = total[better], candidate[better], chosen.reshape(rows, -1)[better]
    return QParams(scale.reshape(-1), None, row_scale)


def multiples_of_tensor(groups: Floats, ideal: Floats, measure: Measure) -> QParams:
    """The same for fp8 multiples of one fp32 scale."""
    shared = round_scale(np.array([ideal.max() / np.float32(E4M3.largest)], np.float32), "e4m3")
    code = np.clip(E4M3.encode((np.abs(ideal) / shared).astype(np.float32)).astype(np.int64), 1, LARGEST_CODE)
    tried = [E4M3.decode(np.clip(code + step, 1, LARGEST_CODE)) * shared for step in (0, 1, -1, -2, -3, -4, -5, -6)]
    return QParams(best_of(groups, tried, measure)[1], None, shared)


def best_of(groups: Floats, candidates: list[Floats], measure: Measure) -> tuple[Floats, Floats]:
    """(groups,) errors and scales, for each group the candidate of least error, the first of equals."""
    errors = np.stack([measure.error(groups, scale) for scale in candidates])
    best = errors.argmin(axis=0)[None, :]
    return np.take_along_axis(errors, best, axis=0)[0], np.take_along_axis(np.stack(candidates), best, axis=0)[0]


SHARE: dict[str, Callable[[Floats, Floats, Measure], QParams]] = {"row5": multiples_of_rows, "e4m3": multiples_of_tensor}


def multiples_of_rows_reference(groups: Floats, ideal: Floats, measure: Measure) -> QParams:
    """The slow twin of `multiples_of_rows`: one row, one candidate, one group, one multiple at a time."""
    rows = measure.shape[0]
    groups_a_row = len(groups) // rows
    row_scale, scale = np.ones(rows, np.float32), np.ones(len(groups), np.float32)
    for row in range(rows):
        members = range(row * groups_a_row, (row + 1) * groups_a_row)
        top = np.float32(max(abs(ideal[index]) for index in members)) / np.float32(LARGEST_MULTIPLE)
        least = np.inf
        for factor in FACTORS:
            candidate = round_scale(np.array([top * np.float32(factor)]), "row5")
            chosen = [_best_of_two(groups[index : index + 1], ideal[index], candidate[0], measure) for index in members]
            error = sum(float(error) for error, _ in chosen)
            if error < least:
                least, row_scale[row] = error, candidate[0]
                scale[members.start : members.stop] = [found for _, found in chosen]
    return QParams(scale, None, row_scale)


def _best_of_two(group: Floats, ideal: np.float32, row_scale: np.float32, measure: Measure) -> tuple[np.float32, np.float32]:
    """(squared error, scale) of one group."""
    below, found = int(np.abs(ideal) / row_scale), []
    for multiple in (below, below + 1):
        size = np.float32(min(max(multiple, 1), LARGEST_MULTIPLE)) * row_scale
        scale = np.array([size if ideal >= 0 else -size], np.float32)
        found.append((measure.error(group, scale)[0], scale[0]))
    return found[1] if found[1][0] < found[0][0] else found[0]
