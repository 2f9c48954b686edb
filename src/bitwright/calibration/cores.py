"""Work on many windows, a core for each piece: torch's own threads meet after every operation, pieces need not.

Where other work wants a core, a thread that waits for another spins in vain; here each goes on with its own piece.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

Each = Callable[[Callable[[slice], None], Sequence[slice]], None]  # (work, pieces): work on all pieces, in any order

CORES = len(os.sched_getaffinity(0))
CHUNK_TOKENS = 1024  # that are computed at a time: their activations stay in a core's cache


@contextmanager
def pieces_at_once() -> Iterator[Each]:
    """Gives what works on all pieces before it returns, in inference mode, and raises what the work raised."""
    before = torch.get_num_threads()
    # of the pool's threads alone, and of those that begin while it is there
    with ThreadPoolExecutor(CORES, initializer=torch.set_num_threads, initargs=(1,)) as pool:

        def each(work: Callable[[slice], None], pieces: Sequence[slice]) -> None:
            def alone(piece: slice) -> None:
                with torch.inference_mode():
                    work(piece)

            for _ in pool.map(alone, pieces):
                pass

        try:
            yield each
        finally:
            torch.set_num_threads(before)
