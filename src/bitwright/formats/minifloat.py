"""Minifloats: fp8, fp6 and fp4, floating-point numbers of a few bits, as the OCP MX specification lays them out.

With sign s, exponent field e of E bits and bias 2^(E-1) - 1, mantissa field m of M bits:

    e > 0:  (-1)^s 2^(e - bias) (1 + m / 2^M)         e = 0:  (-1)^s 2^(1 - bias) m / 2^M

e4m3 gives up one code a sign for NaN, e5m2 all of its largest exponent for infinity and NaN (IEEE 754); the narrower
ones have numbers alone. Codes are the numbers' own bits. Encoding saturates.
OCP Microscaling Formats (MX) v1.0, 2023; FP8 Formats for Deep Learning, arXiv:2209.05433.
"""

from __future__ import annotations

from bitwright.formats.table import OWN_SCALES, Table


def minifloat(exponent_bits: int, mantissa_bits: int) -> Table:
    """`fp8e4m3` and its like."""
    bits = 1 + exponent_bits + mantissa_bits
    name = f"fp{bits}e{exponent_bits}m{mantissa_bits}"
    levels = tuple(number(code, exponent_bits, mantissa_bits) for code in range(1 << bits))
    largest = max(level for level in levels if level == level)
    summary = f"floats of {bits} bits: {exponent_bits} of exponent, {mantissa_bits} of mantissa, up to {largest:g}"
    return Table(name, bits, summary, levels, (*OWN_SCALES, "pow2", "e4m3"))


def number(code: int, exponent_bits: int, mantissa_bits: int) -> float:
    """What a code stands for; NaN for NaN and infinity."""
    mantissa = code & ((1 << mantissa_bits) - 1)
    exponent = (code >> mantissa_bits) & ((1 << exponent_bits) - 1)
    sign = -1.0 if code >> (exponent_bits + mantissa_bits) else 1.0
    top = exponent == (1 << exponent_bits) - 1
    if top and (exponent_bits == 5 or (exponent_bits == 4 and mantissa == (1 << mantissa_bits) - 1)):
        return float("nan")
    bias = (1 << (exponent_bits - 1)) - 1
    fraction = mantissa / (1 << mantissa_bits)
    return sign * 2.0 ** (max(exponent, 1) - bias) * (fraction + (exponent > 0))
