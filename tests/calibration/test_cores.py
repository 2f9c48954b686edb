"""Pieces at once: all are worked on, each by one thread, and torch's own threads are as before."""

from __future__ import annotations

import threading

import pytest

pytest.importorskip("torch", exc_type=ImportError)

import torch

from bitwright.calibration.cores import pieces_at_once

PIECES = [slice(begin, begin + 2) for begin in range(0, 20, 2)]


def test_all_pieces_are_worked_on_by_one_thread_each() -> None:
    before, done, threads = torch.get_num_threads(), torch.zeros(20), []

    def work(piece: slice) -> None:
        assert torch.is_inference_mode_enabled() and threading.current_thread() is not threading.main_thread()
        threads.append(torch.get_num_threads())
        done[piece] += 1

    with pieces_at_once() as each:
        each(work, PIECES)
        each(work, PIECES)
    assert (done == 2).all() and set(threads) == {1}
    assert torch.get_num_threads() == before


def test_what_a_piece_raises_is_raised() -> None:
    before = torch.get_num_threads()

    def work(piece: slice) -> None:
        if piece.start == 6:
            raise ValueError("piece 6")

    with pytest.raises(ValueError, match="piece 6"), pieces_at_once() as each:
        each(work, PIECES)
    assert torch.get_num_threads() == before
