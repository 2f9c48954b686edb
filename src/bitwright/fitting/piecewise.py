"""Piecewise linear levels: even steps in the centre, where most weights are, and longer even steps in the two tails.

PWLQ, Fang et al. 2020, arXiv:2002.00104. For weights in [-1, 1] and a breakpoint p, half of the codes cover [-p, p] and a
quarter each tail. p is searched for: the expected error is convex in it for bell-shaped weights, so a fine grid will do.
The grid here has 0 among its levels, hence one step less above p than below -p.
"""

from __future__ import annotations

import numpy as np

from bitwright.fitting.cells import Cells, Doubles

BREAKPOINTS = np.linspace(0.05, 0.95, 91)


def piecewise(cells: Cells, start: Doubles) -> Doubles:
    """(tables, levels) -> the levels of the best breakpoint for each table. Only the number of levels in `start` counts."""
    bits = start.shape[1].bit_length() - 1
    tables = [np.broadcast_to(np.array([levels_of(point, bits)]), start.shape) for point in BREAKPOINTS]
    errors = np.stack([cells.error(levels) for levels in tables])
    return np.asarray(np.stack(tables)[errors.argmin(axis=0), np.arange(len(start))])


def levels_of(point: float, bits: int) -> tuple[float, ...]:
    """2^bits ascending levels from -1 to 1 with 0 among them; -p and p are the ends of the centre."""
    quarter = 1 << (bits - 2)
    centre = [point * step / quarter for step in range(-quarter, quarter + 1)]
    below = [-1 + (1 - point) * step / quarter for step in range(quarter)]
    above = [point + (1 - point) * step / (quarter - 1) for step in range(1, quarter)]
    return (*below, *centre, *above)
