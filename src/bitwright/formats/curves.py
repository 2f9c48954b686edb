"""Formats whose levels lie on a curve.

`pwl`: two slopes, a fine one in the centre and a coarse one in the tails (fitting/piecewise.py).
`neural`: a small monotone network (fitting/compander.py).
`sneural`: the same network, trained once for all tensors: on normal numbers, each 64 over their largest.

The first two are fitted for each tensor, and stored as its table.
"""

from __future__ import annotations

from bitwright.formats.table import Table, learned_table

SHARED = {  # as fitting/compander.py trains them; whole numbers, which the engine looks up
    4: (-127, -102, -82, -65, -50, -37, -25, -12, 0, 13, 27, 42, 58, 76, 97, 125),
    3: (-127, -85, -52, -26, 0, 31, 68, 117),
}


def piecewise_linear(bits: int) -> Table:
    """`pwl4` to `pwl8`. Before it is fitted: even steps, with 0 among them."""
    quarter = 1 << (bits - 2)
    negative = tuple(step / (2 * quarter) for step in range(-2 * quarter, 0))
    above = tuple(0.5 + 0.5 * step / (quarter - 1) for step in range(1, quarter))
    levels = (*negative, 0.0, *(step / (2 * quarter) for step in range(1, quarter + 1)), *above)
    summary = f"{1 << bits} levels on two slopes, half of them in the centre, bent where the tensor's error is least"
    return learned_table(f"pwl{bits}", bits, summary, levels, ("tensor", "piecewise"))


def neural(bits: int) -> Table:
    """`neural3`, `neural4`. Before it is fitted: even steps, the negative half one step longer."""
    half = 1 << (bits - 1)
    levels = (*(step / half for step in range(-half, 0)), 0.0, *(step / (half - 1) for step in range(1, half)))
    summary = f"{1 << bits} levels on the curve of a small monotone network, trained for each tensor"
    return learned_table(f"neural{bits}", bits, summary, levels, ("tensor", "compander"))


def shared_neural(bits: int) -> Table:
    """`sneural3`, `sneural4`: nothing is learned of a tensor."""
    summary = f"{1 << bits} levels on the curve of a small monotone network, trained once on normal numbers, times a scale"
    return Table(f"sneural{bits}", bits, summary, tuple(map(float, SHARED[bits])))
