"""Powers of two, and sums of two powers: a product is a shift, or two shifts and an addition.

`pot`: 0 and +-2^-k. The levels crowd around zero, and more bits add only ever smaller ones ("rigid resolution").
`apot`: a sign and the sum of one term of each of two sets of powers, which spreads the levels more evenly
(additive powers of two, Li et al. 2020, arXiv:1909.13144; sets chosen so that no sum comes twice):

    apot4: {0, 1, 1/4, 1/16} + {0, 1/2}              apot5: {0, 1, 1/4, 1/16} + {0, 1/2, 1/8, 1/32}
"""

from __future__ import annotations

from bitwright.formats.table import Table

FIRST = (0.0, 1.0, 0.25, 0.0625)
SECOND = {4: (0.0, 0.5), 5: (0.0, 0.5, 0.125, 0.03125)}


def power_of_two(bits: int) -> Table:
    """`pot3`, `pot4`: codes ascend; there is one positive level more than negative ones."""
    half = 1 << (bits - 1)
    negative = tuple(-(2.0**-k) for k in range(half - 1))
    positive = tuple(2.0**-k for k in reversed(range(half)))
    summary = f"0 and powers of two from 1 down to 1/{1 << (half - 1)}, of either sign, times a scale"
    return Table(f"pot{bits}", bits, summary, (*negative, 0.0, *positive))


def additive_power_of_two(bits: int) -> Table:
    """`apot4`, `apot5`: the upper half of the codes are the negatives of the lower, -0 among them."""
    sums = sorted(first + second for first in FIRST for second in SECOND[bits])
    summary = f"sums of two powers of two, {len(sums)} of either sign up to {sums[-1]:g}, times a scale"
    return Table(f"apot{bits}", bits, summary, (*sums, *(-x for x in sums)))
