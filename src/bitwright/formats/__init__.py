"""The table of number formats. A format listed here is tested by tests/laws, printed by `bitwright formats`, and nothing else."""

from __future__ import annotations

from bitwright.formats.codebook import learned, normal_float
from bitwright.formats.curves import neural, piecewise_linear, shared_neural
from bitwright.formats.fixed_point import FixedPoint
from bitwright.formats.full_precision import FullPrecision
from bitwright.formats.minifloat import minifloat
from bitwright.formats.powers import additive_power_of_two, power_of_two
from bitwright.formats.table import Table
from bitwright.formats.uniform import Uniform

_ALL: tuple[FullPrecision | Uniform | Table, ...] = (
    FullPrecision("fp32", 32),
    FullPrecision("fp16", 16),
    FullPrecision("bf16", 16),
    *(Uniform(bits) for bits in range(8, 1, -1)),
    *(FixedPoint(bits) for bits in range(8, 1, -1)),
    *(minifloat(exponent, mantissa) for exponent, mantissa in ((4, 3), (5, 2), (2, 3), (3, 2), (2, 1))),
    *(power_of_two(bits) for bits in (4, 3)),
    *(additive_power_of_two(bits) for bits in (5, 4)),
    *(normal_float(bits) for bits in (4, 3, 2)),
    *(learned(kind, bits) for kind in ("kmeans", "any", "local") for bits in (4, 3, 2)),
    *(piecewise_linear(bits) for bits in (8, 6, 4)),
    *(neural(bits) for bits in (4, 3)),
    *(shared_neural(bits) for bits in (4, 3)),
)
FORMATS = {format.name: format for format in _ALL}

# Schemes with a name of their own: the block formats of OCP MX v1.0 (a power of two for 32 numbers) and NVFP4.
NAMED = {
    "mxfp8": "fp8e4m3-g32-spow2",
    "mxfp6": "fp6e2m3-g32-spow2",
    "mxfp4": "fp4e2m1-g32-spow2",
    "nvfp4": "fp4e2m1-g16-se4m3",
}
