"""The table of number formats. A format listed here is tested by tests/laws, printed by `bitwright formats`, and nothing else."""

from __future__ import annotations

from bitwright.formats.fixed_point import FixedPoint
from bitwright.formats.full_precision import FullPrecision
from bitwright.formats.uniform import Uniform

_ALL: tuple[FullPrecision | Uniform, ...] = (
    FullPrecision("fp32", 32),
    FullPrecision("fp16", 16),
    FullPrecision("bf16", 16),
    *(Uniform(bits) for bits in range(8, 1, -1)),
    *(FixedPoint(bits) for bits in range(8, 1, -1)),
)
FORMATS = {format.name: format for format in _ALL}
