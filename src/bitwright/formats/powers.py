"""Powers of two, and sums of two powers: a product is a shift, or two shifts and an addition.

`pot`: 0 and +-2^k. The levels crowd around zero, and more bits add only ever smaller ones ("rigid resolution").
`apot`: a sign and the sum of one term of each of two sets of powers, which spreads the levels more evenly
(additive powers of two, Li et al. 2020, arXiv:1909.13144; sets chosen so that no sum comes twice):

    apot4: {0, 1, 4, 16} + {0, 8}              apot5: {0, 2, 8, 32} + {0, 1, 4, 16}

The upper half of the codes are the negatives of the lower, -0 among them.
"""

from __future__ import annotations

from bitwright.formats.table import Table

SETS = {4: ((0, 1, 4, 16), (0, 8)), 5: ((0, 2, 8, 32), (0, 1, 4, 16))}


def power_of_two(bits: int) -> Table:
    """`pot3`, `pot4`."""
    sizes = (0, *(1 << k for k in range((1 << (bits - 1)) - 1)))
    return signed(f"pot{bits}", bits, sizes, f"0 and powers of two up to {sizes[-1]} of either sign, times a scale")


def additive_power_of_two(bits: int) -> Table:
    """`apot4`, `apot5`."""
    first, second = SETS[bits]
    sizes = tuple(sorted(one + other for one in first for other in second))
    return signed(f"apot{bits}", bits, sizes, f"sums of two powers of two up to {sizes[-1]}, of either sign, times a scale")


def signed(name: str, bits: int, sizes: tuple[int, ...], summary: str) -> Table:
    return Table(name, bits, summary, (*(float(x) for x in sizes), *(-float(x) for x in sizes)))
