"""Codebooks: the levels are where the weights are.

`nf`: quantiles of the normal distribution, half of the codes for each sign and a zero between them, scaled to [-1, 1]
(NormalFloat, QLoRA, Dettmers et al. 2023, arXiv:2305.14314). With o = 1 - (1 / 2^(b+1) + 1 / (2^(b+1) - 2)) / 2:

    positive levels: Phi^-1 at 2^(b-1) + 1 even steps from 1/2 to o, without the first
    negative levels: -Phi^-1 at 2^(b-1) even steps from 1/2 to o, without the first

They are real numbers. The engine rounds them to 127ths (engine/layout.py): a weight it multiplies is off by at most scale / 254.

`kmeans`: one table a tensor, `any`: one a row, `local`: one a group, each learned by k-means from the weights over their
scales (Han et al. 2016, arXiv:1510.00149; any4, Elhoushi and Johnson 2025, arXiv:2507.04610). Learning starts from `nf`. A scheme
may ask `kmeans` for a number of levels that is no power of two: the table's last level then fills its other places.
"""

from __future__ import annotations

from statistics import NormalDist

from bitwright.formats.table import Table, learned_table

SHARES = {"kmeans": "tensor", "any": "row", "local": "group"}


def normal_levels(count: int) -> tuple[float, ...]:
    """So many ascending levels from -1 to 1, one of which is 0; at least three."""
    end = 1 - (1 / (2 * count) + 1 / (2 * count - 2)) / 2

    def quantiles(count: int) -> list[float]:
        return [NormalDist().inv_cdf(0.5 + (end - 0.5) * step / count) for step in range(1, count + 1)]

    positive, negative = quantiles(count // 2), quantiles((count - 1) // 2)
    return (*(-x / negative[-1] for x in reversed(negative)), 0.0, *(x / positive[-1] for x in positive))


def normal_float(bits: int) -> Table:
    """`nf2` to `nf4`."""
    return Table(f"nf{bits}", bits, f"{1 << bits} quantiles of the normal distribution, times a scale", normal_levels(1 << bits))


def learned(kind: str, bits: int) -> Table:
    """`kmeans4`, `any4`, `local4` and their like."""
    share = SHARES[kind]
    summary = f"{1 << bits} levels learned by k-means, a table of their own for each {share}, times a scale"
    return learned_table(f"{kind}{bits}", bits, summary, normal_levels(1 << bits), (share, "kmeans"))
