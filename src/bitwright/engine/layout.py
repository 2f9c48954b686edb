"""How the engine holds a quantized matrix: its scheme and its columns decide.

    codes     as they lie on disk: even levels
    look-up   as they lie on disk, up to four bits each: places in a table of whole levels, the tensor's or one for each row
    bytes     one int8 a weight, whatever a code takes on disk: levels of wider tables, or of tables for each group;
              or level times its group's whole multiple of the row's scale, whatever the group
    fp32      decoded, and multiplied by floats: all else

The first three are multiplied as integers and need groups of whole rows or of a multiple of 32 columns, save for those multiples.
Levels are whole in some unit, which goes into the scales, and what was stored is held exactly, with one exception: a table of
up to four bits whose levels are whole in no unit (`nf2` to `nf4`) is rounded to multiples of u = largest / 127. A level is
then off by at most u / 2, so

    |held - stored| <= scale * largest / 254

for every weight. The artifact keeps its levels, and whoever decodes it (`LanguageModel.read`) gets these.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.core import Codes, Floats, Scheme
from bitwright.formats import FORMATS
from bitwright.formats.packing import unpack
from bitwright.formats.scales import group_scales, load_multiples, load_scale
from bitwright.formats.table import Table
from bitwright.formats.uniform import Uniform
from bitwright.models.base import LanguageModel, Packed

CODES, LOOK_UP, BYTES, FLOATS = "codes", "look-up", "bytes", "fp32"

BLOCK = 32  # columns that the integer kernels take at a time
WHOLE = 127  # largest level that they take
ZERO = 128  # the byte that stands for level 0
LOOK_UP_BITS = 4  # of a code, at most
UNITS = (1.0, 0.5, 0.125)  # in which a table's levels may be whole; fp4 counts in halves, fp6e2m3 in eighths
CHUNK = 1 << 20  # weights whose levels are looked up at a time
GGUF_CODES = frozenset({"q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_k", "q5_k"})  # types of GGUF that run on their codes


@dataclass(frozen=True)
class Integers:
    """A matrix as `_native.Weights.add_packed` takes it.

    `codes` (rows, row bytes); `scale` (groups,) fp16 as uint16, or float32; (rows,) where there are `multiples`, (groups,) int8;
    `zero_point` (groups,) uint8; `table` (1 or rows, 16) uint8, level + 128; `group` in columns, -1 for the tensor.
    """

    codes: Codes
    scale: npt.NDArray[np.uint16] | Floats
    bits: int
    group: int
    zero_point: Codes | None = None
    multiples: npt.NDArray[np.int8] | None = None
    table: Codes | None = None


def held_as(scheme: Scheme, columns: int) -> str:
    """CODES, LOOK_UP, BYTES or FLOATS; for a scheme in full precision, its format."""
    form = FORMATS[scheme.format]
    aligned = scheme.group in (0, -1, columns) or scheme.group % BLOCK == 0
    if isinstance(form, Uniform):
        return CODES if aligned else BYTES if scheme.scale == "row5" else FLOATS
    if not isinstance(form, Table):
        return form.name
    if not aligned:
        return FLOATS
    if form.bits <= LOOK_UP_BITS and (form.learned != "group" or scheme.group in (0, -1, columns)):
        return LOOK_UP
    return BYTES if unit_of(form) else FLOATS


def held(model: LanguageModel, name: str) -> list[tuple[str, str]]:
    """(scheme, what `held_as` says of it) of a stored matrix, or of its blocks of rows. Nothing is decoded to find out."""
    columns, lines = model.shape(name)[1], getattr(model, "lines", None)  # of an artifact, or of what will be one
    if lines is not None:
        return [(str(line.scheme), held_as(line.scheme, columns)) for line in lines(name)]
    scheme = model.scheme_of(name)
    return [(scheme, scheme if scheme in FORMATS else CODES if scheme in GGUF_CODES else FLOATS)]


def decoded(model: LanguageModel) -> dict[str, list[str]]:
    """Matrices that are stored in fewer bits and that the engine decodes to fp32: name -> the schemes that make it do so."""
    matrices = {name: held(model, name) for name in model.names() if len(model.shape(name)) == 2}
    found = {name: [scheme for scheme, kind in parts if kind == FLOATS != scheme] for name, parts in matrices.items()}
    return {name: schemes for name, schemes in found.items() if schemes}


def integers_of(packed: Packed) -> Integers | None:
    """None where the engine decodes the matrix to fp32."""
    kind, bits = held_as(packed.scheme, packed.shape[1]), FORMATS[packed.scheme.format].bits
    group = packed.scheme.group or packed.shape[1]
    form = FORMATS[packed.scheme.format]
    if kind == CODES:
        multiples = None if packed.multiple is None else load_multiples(packed.multiple, packed.groups_a_row).reshape(-1)
        zero_point = None if packed.zero_point is None else np.ascontiguousarray(packed.zero_point)
        return Integers(np.ascontiguousarray(packed.codes), _scale_bits(packed), bits, group, zero_point, multiples)
    if kind == BYTES and isinstance(form, Uniform):
        return Integers(_multiplied(packed), _scale_bits(packed), 8, packed.shape[1])
    if kind == FLOATS or not isinstance(form, Table):
        return None
    unit = unit_of(form)
    levels = _whole_levels(form.table if packed.table is None else packed.table, unit)
    if kind == BYTES:
        return Integers(_looked_up(packed, levels), _scale_bits(packed, unit), 8, group)
    table = np.full((len(levels), 1 << LOOK_UP_BITS), ZERO, np.uint8)
    table[:, : levels.shape[1]] = levels
    return Integers(np.ascontiguousarray(packed.codes), _scale_bits(packed, unit), bits, group, table=table)


@cache
def unit_of(form: Table) -> float:
    """What whole levels of this format are multiples of; 0 where a table of more than four bits has none."""
    if form.learned:
        return 1.0 if form.whole else 0.0
    for unit in UNITS:
        whole = form.table / np.float32(unit)
        if (np.abs(whole) <= WHOLE).all() and (whole == np.rint(whole)).all():
            return unit
    return float(np.abs(form.table).max()) / WHOLE if form.bits <= LOOK_UP_BITS else 0.0


def _whole_levels(tables: npt.NDArray[Any], unit: float) -> Codes:
    """(tables, levels) in units, as bytes: level + 128."""
    return np.asarray(np.rint(tables.astype(np.float64) / unit) + ZERO, np.uint8)


def _looked_up(packed: Packed, levels: Codes) -> Codes:
    """(rows, columns) bytes; `levels` are (tables, 2^bits), each for an equal share of the weights."""
    codes = unpack(packed.codes, packed.shape[1], FORMATS[packed.scheme.format].bits)
    shares = codes.reshape(max(len(levels), packed.shape[0]), -1)
    found = np.empty_like(shares)
    step = max(1, CHUNK // shares.shape[1])
    for begin in range(0, len(shares), step):
        part = slice(begin, begin + step)
        tables = levels if len(levels) == 1 else levels[part]
        found[part] = np.take_along_axis(tables, shares[part].astype(np.intp), axis=1)
    return found.reshape(packed.shape)


def _multiplied(packed: Packed) -> Codes:
    """(rows, columns) bytes: level times the multiple of its group, at most 8 * 15."""
    assert packed.multiple is not None
    bits = FORMATS[packed.scheme.format].bits
    levels = unpack(packed.codes, packed.shape[1], bits).view(np.int8) - np.int8(1 << (bits - 1))
    multiples = load_multiples(packed.multiple, packed.groups_a_row)
    grouped = levels.reshape(*multiples.shape, -1) * multiples[:, :, None]
    return (grouped.view(np.uint8) ^ np.uint8(ZERO)).reshape(packed.shape)


def _scale_bits(packed: Packed, unit: float = 1.0) -> npt.NDArray[np.uint16] | Floats:
    """Scales of levels that count in `unit`: fp16 as uint16 where they stay what they are, others as float32."""
    kind = packed.scheme.scale
    if kind == "fp16" and unit == 1:
        return np.ascontiguousarray(packed.scale).view(np.uint16)
    scale = load_scale(np.ascontiguousarray(packed.scale), kind)
    if kind == "e4m3":
        assert packed.multiple is not None
        scale = group_scales(scale, packed.multiple, kind, packed.groups_a_row)
    return scale * np.float32(unit)
