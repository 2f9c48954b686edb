"""Entropies are what real coders reach: a Huffman code from above, an arithmetic coder to within two bits."""

from __future__ import annotations

import heapq
import itertools
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core import Choice, Scheme
from bitwright.formats import FORMATS
from bitwright.models.base import Dense, Packed
from bitwright.quantization.matrix import quantize_matrix
from bitwright.sparsity import size
from bitwright.sparsity.size import COUNT_BITS, LONGEST_RUN, coded_size, ideal_bits, runs_of_zeros

Codes = npt.NDArray[np.uint8]


def huffman_bits(counts: list[int]) -> int:
    """Of a Huffman code for at least two symbols: the sum of all merged counts."""
    heap, bits = sorted(counts), 0
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        bits += merged
        heapq.heappush(heap, merged)
    return bits


def arithmetic_code(symbols: list[int], counts: list[int]) -> tuple[int, int]:
    """(code, its length in bits): the shortest binary fraction all of whose continuations lie in the symbols' interval."""
    low, width = Fraction(0), Fraction(1)
    for symbol in symbols:
        low, width = low + width * Fraction(sum(counts[:symbol]), sum(counts)), width * Fraction(counts[symbol], sum(counts))
    bits = next(bits for bits in itertools.count() if Fraction(-(-(low * 2**bits) // 1) + 1, 2**bits) <= low + width)
    return int(-(-(low * 2**bits) // 1)), bits


def arithmetic_decode(code: Fraction, counts: list[int], length: int) -> list[int]:
    symbols = []
    for _ in range(length):
        place = int(code * sum(counts))
        symbols.append(next(k for k in range(len(counts)) if place < sum(counts[: k + 1])))
        code = (code * sum(counts) - sum(counts[: symbols[-1]])) / counts[symbols[-1]]
    return symbols


@given(symbols=st.lists(st.integers(0, 5), min_size=1, max_size=60))
@settings(deadline=None, max_examples=20)
def test_the_entropy_is_what_coders_reach(symbols: list[int]) -> None:
    counts = np.bincount(symbols, minlength=6)
    code, bits = arithmetic_code(symbols, counts.tolist())
    assert arithmetic_decode(Fraction(code, 2**bits), counts.tolist(), len(symbols)) == symbols
    assert bits - 2 <= ideal_bits(counts) <= bits + 1e-9
    if np.count_nonzero(counts) > 1:
        assert ideal_bits(counts) <= huffman_bits(counts[counts > 0].tolist()) <= ideal_bits(counts) + len(symbols)


def undo_runs(sent: Codes, runs: Codes, length: int) -> list[int]:
    """The slow way back, from runs in their order, of codes that are 0 where they are zeros."""
    codes, values = [], iter(sent.tolist())
    for run in runs.tolist():
        codes += [0] * run
        codes += [] if run == LONGEST_RUN else [next(values)]
    return codes + [0] * (length - len(codes))


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 3, 254, 255, 256, 511, 700]), st.integers(1, 9)), max_size=6), st.integers(0, 600)
)
@settings(deadline=None, max_examples=30)
def test_runs_of_zeros_say_it_all(parts: list[tuple[int, int]], tail: int) -> None:
    """Also when codes come in blocks. Runs are there to be counted, so their order is left open."""
    codes = np.array([c for run, code in parts for c in [0] * run + [code]] + [0] * tail, np.uint8)
    sent, runs, left = runs_of_zeros(codes, codes == 0, 0)
    assert left == tail and len(sent) == len(parts)
    ordered = [r for run, _ in parts for r in [LONGEST_RUN] * (run // LONGEST_RUN) + [run % LONGEST_RUN]]
    assert sorted(ordered) == sorted(runs.tolist())
    assert undo_runs(sent, np.array(ordered, np.uint8), len(codes)) == codes.tolist()
    blocks, pending = [], 0
    for begin in range(0, len(codes), 300):
        block = codes[begin : begin + 300]
        *found, pending = runs_of_zeros(block, block == 0, pending)
        blocks.append(found)
    assert pending == tail
    if blocks:
        np.testing.assert_array_equal(np.concatenate([block[0] for block in blocks]), sent)
        assert sorted(np.concatenate([block[1] for block in blocks]).tolist()) == sorted(runs.tolist())


def quantized(spelling: str, prune: str, rotate: bool = False, rows: int = 64) -> Packed:
    weights = np.random.default_rng(2).standard_normal((rows, 128)).astype(np.float32)
    stored = quantize_matrix("x", Dense("fp32", weights), Choice("*", Scheme.parse(spelling), rotate=rotate, prune=prune))
    assert isinstance(stored, Packed)
    return stored


@pytest.mark.parametrize("spelling", ["int4-g32", "int4-g32-affine", "int3-g32-srow5", "kmeans4-tensor", "int8-channel"])
@pytest.mark.parametrize("prune", ["", "2:4", "block8x8:0.9"])
def test_a_tensor_is_counted_from_its_codes(spelling: str, prune: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = quantized(spelling, prune)
    codes, zero = tensor.qtensor().codes, tensor.dequantize().reshape(-1) == 0
    found = coded_size(tensor, tensor.scheme.stored_bits(tensor.shape))
    width = FORMATS[tensor.scheme.format].bits
    beside = found.stored_bits - codes.size * width
    table = COUNT_BITS * 2**width
    shares = np.unique(codes, return_counts=True)[1] / codes.size
    entropy = -codes.size * (shares * np.log2(shares)).sum()
    assert found.order_zero_bits == pytest.approx(entropy + beside + table)
    sent, runs, _ = runs_of_zeros(codes.reshape(-1), zero, 0)
    ideal = sum(ideal_bits(np.bincount(part)) for part in (sent, runs))
    assert found.run_bits == pytest.approx(ideal + beside + table + COUNT_BITS * 256)
    assert (found.weights, found.zeros) == (codes.size, int(zero.sum()))
    assert found.entropy_bits == min(found.stored_bits, found.order_zero_bits, found.run_bits)
    monkeypatch.setattr(size, "BLOCK_WEIGHTS", 5 * 128)
    assert coded_size(tensor, found.stored_bits) == found


def test_zeros_make_tensors_small() -> None:
    sizes = [quantized("int8-channel", prune, rows=1024) for prune in ("", "2:4", "block8x8:0.9")]
    found = [coded_size(tensor, tensor.scheme.stored_bits(tensor.shape)) for tensor in sizes]
    assert found[0].entropy_bits > found[1].entropy_bits > found[2].entropy_bits
    assert found[2].run_bits < found[2].order_zero_bits  # zeros in blocks come in runs
    assert found[1].order_zero_bits < found[1].stored_bits


def test_rotated_codes_are_counted_as_they_are_stored() -> None:
    turned = quantized("int2-g32", "", rotate=True)
    stored = np.count_nonzero(turned.qtensor().codes == 2)  # of level 0
    assert turned.rotation and coded_size(turned, 0).zeros == stored > 0


def test_full_precision_is_counted_as_it_is_stored() -> None:
    found = coded_size(Dense("fp16", np.array([[0, -0.0, 1]], np.float16)), 48)
    assert (found.weights, found.zeros, found.entropy_bits) == (3, 2, 48)
