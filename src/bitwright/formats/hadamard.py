"""The Hadamard rotation of a matrix's columns, block by block: outliers spread over their block, and the product stays.

W x = (W H)(H x) with H = H^T = H^-1 orthonormal: the weights W H are stored, the engine multiplies them by H x. H is
block-diagonal; a block of n = 2^k columns is Sylvester's matrix (1867), H_1 = 1, H_2n = [[H_n, H_n], [H_n, -H_n]], over
sqrt(n). Against outliers: QuIP (arXiv:2307.13304), QuaRot (arXiv:2404.00456). Fast form: k additions a number instead of n.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

LARGEST_BLOCK = 64
CACHED = 1 << 17  # numbers that are worked on at once

Floats = npt.NDArray[np.float32]


def rotation_block(columns: int) -> int:
    """The largest power of two up to 64 that divides `columns`; 0 (no rotation) where that is 1."""
    block = min(columns & -columns, LARGEST_BLOCK)
    return block if block > 1 else 0


def is_rotation(block: int, columns: int) -> bool:
    """Whether rows of `columns` can be rotated by blocks of `block`."""
    return 2 <= block <= LARGEST_BLOCK and block & (block - 1) == 0 and columns % block == 0


def rotate(weights: Floats, block: int) -> Floats:
    """(rows, columns) times H; the same again gives the weights back. Block 0 leaves them as they are.

    Passes of H = H_2 x .. x H_2 one after the other: sums and differences of what lies 1, 2, 4, .. apart in the block. As many
    blocks as a cache holds are worked on with their first elements side by side, then their second ones, and so on.
    """
    if block == 0:
        return weights
    blocks = weights.reshape(-1, block)
    turned, scale = np.empty(blocks.shape, np.float32), np.float32(block**-0.5)
    room = np.empty((2, min(CACHED, blocks.size)), np.float32)
    for begin in range(0, len(blocks), CACHED // block):
        part = blocks[begin : begin + CACHED // block]
        x, y = (each[: part.size].reshape(block, len(part)) for each in room)
        x[...] = part.T
        for apart in (1 << step for step in range(block.bit_length() - 1)):
            pairs, found = (each.reshape(-1, 2, apart * len(part)) for each in (x, y))
            np.add(pairs[:, 0], pairs[:, 1], out=found[:, 0])
            np.subtract(pairs[:, 0], pairs[:, 1], out=found[:, 1])
            x, y = y, x
        np.multiply(x.T, scale, out=turned[begin : begin + len(part)])
    return turned.reshape(weights.shape)


def rotate_reference(weights: npt.NDArray[np.floating[Any]], block: int) -> npt.NDArray[np.float64]:
    """The slow twin of `rotate`: a product with the matrix itself, in double precision."""
    matrix = np.ones((1, 1))
    while len(matrix) < block:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    turned = weights.astype(np.float64).reshape(-1, block) @ matrix / np.sqrt(block)
    return np.asarray(turned.reshape(weights.shape))
