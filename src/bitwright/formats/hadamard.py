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

    Each pass puts sums of neighbours into the left half of the block and differences into the right: (H_2 x I) times a
    perfect shuffle, which after k passes is back where it began.
    """
    if block == 0:
        return weights
    x, half = weights.reshape(-1, block).astype(np.float32, copy=False), block // 2
    for _ in range(block.bit_length() - 1):
        y = np.empty_like(x)
        np.add(x[:, ::2], x[:, 1::2], out=y[:, :half])
        np.subtract(x[:, ::2], x[:, 1::2], out=y[:, half:])
        x = y
    return (x * np.float32(block**-0.5)).reshape(weights.shape)


def rotate_reference(weights: npt.NDArray[np.floating[Any]], block: int) -> npt.NDArray[np.float64]:
    """The slow twin of `rotate`: a product with the matrix itself, in double precision."""
    matrix = np.ones((1, 1))
    while len(matrix) < block:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    turned = weights.astype(np.float64).reshape(-1, block) @ matrix / np.sqrt(block)
    return np.asarray(turned.reshape(weights.shape))
