"""Every scheme that the engine multiplies as integers or by look-up, at groups worth their scales: what `--schemes all` offers.

    format x group x zero point     off the table of formats, with scales of its usual type or as multiples of a row's
    names                           of block formats, such as mxfp4

At 8 bits and more a row shares one scale: its codes are so fine that groups would give nothing but size.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from bitwright.core import Scheme
from bitwright.engine.layout import FLOATS, held_as
from bitwright.formats import FORMATS, NAMED

ALL = "all"
GROUPS = (32, 64, 128)
MULTIPLES = "row5"  # scales of groups as multiples of a row's
FINE_BITS = 8


def engine_schemes(widths: Collection[int]) -> tuple[Scheme, ...]:
    """Those that matrices of all these columns can have."""
    named = map(Scheme.parse, NAMED)
    return tuple(scheme for scheme in dict.fromkeys([*_of_the_table(), *named]) if _multiplied(scheme, widths))


def decoded_schemes(schemes: Sequence[Scheme], widths: Collection[int]) -> list[Scheme]:
    """Of these, those of fewer bits that the engine would decode to fp32 in a matrix of one of these columns."""
    return [
        scheme
        for scheme in schemes
        if scheme.scaled and any(_fits(scheme, columns) and held_as(scheme, columns) == FLOATS for columns in widths)
    ]


def _of_the_table() -> Iterator[Scheme]:
    for name, format in FORMATS.items():
        if not format.scaled:
            continue
        for group in (0,) if format.bits >= FINE_BITS else GROUPS:
            yield from (Scheme(name, group, affine, format.scales[0]) for affine in (False, True) if format.affine or not affine)
            if group and MULTIPLES in format.scales:
                yield Scheme(name, group, scale=MULTIPLES)


def _multiplied(scheme: Scheme, widths: Collection[int]) -> bool:
    return all(_fits(scheme, columns) for columns in widths) and not decoded_schemes([scheme], widths)


def _fits(scheme: Scheme, columns: int) -> bool:
    return columns % (scheme.group or columns) == 0
