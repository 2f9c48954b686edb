"""What codes take as they are stored, and what an entropy coder would make of them.

Order zero: with n_k the number of codes k among n, a coder that knows the counts spends at least

    sum over k of n_k log2(n / n_k)

bits (Shannon 1948), which an arithmetic coder reaches to within a few bits. Runs of zeros: each weight that is not zero is
sent with the number of zeros before it since the last one, as in Deep Compression (Han et al. 2016, arXiv:1510.00149); both
numbers are coded as above. That is shorter where zeros come in blocks. The counts themselves are sent as well, COUNT_BITS each.
Scales, zero points and tables are counted as they are stored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bitwright.formats import FORMATS
from bitwright.models.base import Dense, Packed

Counts = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

COUNT_BITS = 32
LONGEST_RUN = 255  # so that runs are bytes
BLOCK_WEIGHTS = 1 << 22  # unpacked at once


@dataclass(frozen=True)
class CodedSize:
    """Bits of one tensor, each with everything that decoding needs."""

    weights: int
    zeros: int
    stored_bits: int
    order_zero_bits: float
    run_bits: float

    @property
    def entropy_bits(self) -> float:
        """By the shortest of the three."""
        return min(self.order_zero_bits, self.run_bits, float(self.stored_bits))


def coded_size(tensor: Packed | Dense, stored_bits: int) -> CodedSize:
    """A tensor and the bits it is stored in, which is also what one in full precision is counted as."""
    if isinstance(tensor, Dense):
        zeros = int(np.count_nonzero(tensor.dequantize() == 0))
        return CodedSize(int(np.prod(tensor.shape)), zeros, stored_bits, float(stored_bits), float(stored_bits))
    counts, pending = np.zeros((3, 256), np.int64), 0  # of all codes; of those sent with a run; of the runs
    (rows, columns), width = tensor.shape, FORMATS[tensor.scheme.format].bits
    step, zeros = max(1, BLOCK_WEIGHTS // columns), 0
    for begin in range(0, rows, step):
        block = replace(tensor.rows(begin, min(begin + step, rows)).qtensor(), rotation=0)  # zeros as they are stored
        codes, zero = block.codes.reshape(-1), (block.dequantize() == 0).reshape(-1)
        sent, runs, pending = runs_of_zeros(codes, zero, pending)
        counts += np.stack([np.bincount(part, minlength=256) for part in (codes, sent, runs)])
        zeros += int(np.count_nonzero(zero))
    beside = stored_bits - 8 * tensor.codes.size
    table = COUNT_BITS * (1 << width)
    run_bits = beside + ideal_bits(counts[1]) + ideal_bits(counts[2]) + table + COUNT_BITS * (LONGEST_RUN + 1)
    return CodedSize(rows * columns, zeros, stored_bits, beside + ideal_bits(counts[0]) + table, run_bits)


def ideal_bits(counts: Counts) -> float:
    """What an ideal coder spends on all of them, the counts being known."""
    some = counts[counts > 0].astype(np.float64)
    return float((some * np.log2(some.sum() / some)).sum())


def runs_of_zeros(codes: Codes, zero: Mask, pending: int) -> tuple[Codes, Codes, int]:
    """(n,) codes -> those that are not zero, the runs before them, and the zeros left over for the next block.

    `pending` zeros came before. A run of LONGEST_RUN stands for as many zeros with no code behind them, of which long runs are
    made. What is left over at the end of a tensor is not sent: its shape says how many there are.
    """
    places = np.flatnonzero(~zero)
    gaps = np.diff(places, prepend=-1 - pending) - 1
    left = len(codes) - 1 - int(places[-1]) if len(places) else pending + len(codes)
    whole = np.full(int((gaps // LONGEST_RUN).sum()), LONGEST_RUN)
    return codes[places], np.concatenate([gaps % LONGEST_RUN, whole]).astype(np.uint8), left
