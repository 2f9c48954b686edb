"""Blocks of rows: parts of one matrix, one below the other, that are stored as tensors of their own.

A vocabulary's rows are not alike: few words make up most of a text. So an embedding or a head may give its first rows, the
common words of most tokenizers, more bits than the rest. NAME:BEGIN-END is what the block of rows [BEGIN, END) of NAME is called,
in a recipe and in an artifact; the whole still answers to NAME.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from bitwright.core import Floats
from bitwright.models.base import Dense, Packed

MOST = 8  # blocks of one matrix, as native/include/bitwright/model.h has it
_BLOCK = re.compile(r"(?P<name>.+):(?P<begin>0|[1-9][0-9]{0,9})-(?P<end>[1-9][0-9]{0,9})")

Rows = tuple[int, int]  # [begin, end)


class Stacked(Dense):
    """The blocks of one matrix. To everybody but the engine it is a Dense of fp32, decoded when its values are asked for."""

    def __init__(self, blocks: Sequence[Packed | Dense]) -> None:
        for name, value in {"dtype": "fp32", "blocks": tuple(blocks)}.items():
            object.__setattr__(self, name, value)

    blocks: tuple[Packed | Dense, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(block.shape[0] for block in self.blocks), *self.blocks[0].shape[1:])

    @property
    def values(self) -> Floats:
        """(rows, columns) float32."""
        return np.concatenate([block.dequantize() for block in self.blocks])

    def rows(self, begin: int, end: int) -> Dense:
        """Rows [begin, end), of each block without a copy."""
        found: list[Packed | Dense] = []
        first = 0
        for block in self.blocks:
            low, high = max(begin - first, 0), min(end - first, block.shape[0])
            if low < high:
                found.append(block.rows(low, high))
            first += block.shape[0]
        return Stacked(found)


def block_name(name: str, rows: Rows) -> str:
    return f"{name}:{rows[0]}-{rows[1]}"


def named_rows(name: str) -> tuple[str, Rows] | None:
    """(matrix, rows) of a block's name; None where it is no block's."""
    match = _BLOCK.fullmatch(name)
    return None if match is None else (match["name"], (int(match["begin"]), int(match["end"])))


def rows_in(name: str) -> Rows:
    """The rows of a block, by its name. Raises `ValueError` where it is no block's."""
    block = named_rows(name)
    if block is None:
        raise ValueError(f"{name} names no block of rows")
    return block[1]


def matrix_of(name: str) -> str:
    """The matrix that a block of rows belongs to; of all else the name itself."""
    block = named_rows(name)
    return name if block is None else block[0]


def blocks_of(names: Iterable[str]) -> dict[str, list[Rows]]:
    """Matrix -> the rows of its blocks, in order, of all names that are a block's. Raises `ValueError` where rows are missing,
    or in two blocks.
    """
    found: dict[str, list[Rows]] = {}
    for name in names:
        block = named_rows(name)
        if block is not None:
            found.setdefault(block[0], []).append(block[1])
    for name, rows in found.items():
        ends = [0, *(end for _, end in rows)]
        if [begin for begin, _ in rows] != ends[:-1] or any(begin >= end for begin, end in rows) or len(rows) > MOST:
            said = ", ".join(f"{begin}-{end}" for begin, end in rows[: MOST + 1])
            raise ValueError(f"{name} must have at most {MOST} blocks of rows, each beginning where the last ends, not {said}")
    return found


def block_names(names: Iterable[str]) -> dict[str, list[str]]:
    """The same, with the blocks by name."""
    return {matrix: [block_name(matrix, rows) for rows in blocks] for matrix, blocks in blocks_of(names).items()}


def whole_names(names: Iterable[str]) -> list[str]:
    """The names of matrices, each once, in place of those of their blocks."""
    return list(dict.fromkeys(map(matrix_of, names)))


def stored_blocks(stored: Packed | Dense) -> tuple[Packed | Dense, ...]:
    """The blocks of a matrix; of one that has none, itself."""
    return stored.blocks if isinstance(stored, Stacked) else (stored,)
