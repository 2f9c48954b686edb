"""Bitwright's engine behind the protocol of `worker.py`, and two verbs of its own:

    steps     kv_cache, depth, batch, steps      -> seconds for all steps, and of these by stage
    ceilings  working_set, threads, seconds      -> bandwidth (bytes/s from so many bytes), peak (int8 operations/s), instruction

Ceilings are what the machine allows the instruction set in use; no model need be loaded.
"""

from __future__ import annotations

import tempfile
import time
from typing import Any

import numpy as np

from bitwright import _native
from bitwright.engine import Engine, Sequence
from worker import VERBS, Floats, Tokens, serve


class Bitwright:
    """One loaded artifact. All sizes are tokens."""

    def __init__(self, path: str, threads: int, context: int, activations: str) -> None:
        self.engine = Engine.load(path, threads=threads, context=context, activations=activations)
        self.weight_bytes = self.engine.weight_bytes
        self._kept: dict[tuple[str, int, int], list[Sequence]] = {}

    def prefill(self, tokens: Tokens) -> Floats:
        return self.engine.prefill(np.array(tokens, np.int32))

    def decode(self, token: int) -> Floats:
        return self.engine.decode(token)

    def logits(self, tokens: Tokens) -> Floats:
        return self.engine.logits(np.array(tokens, np.int32))

    def sequences(self, kv_cache: str, depth: int, batch: int) -> list[Sequence]:
        """`batch` of them that have read `depth` tokens, made once: going back to there takes no time."""
        made = self._kept.setdefault((kv_cache, depth, batch), [])
        if not made:
            tokens = np.random.default_rng(0).integers(0, self.engine.vocab_size, depth).astype(np.int32)
            made += [self.engine.new_sequence(kv_cache) for _ in range(batch)]
            for sequence in made:
                self.engine.read([(sequence, tokens)])
        for sequence in made:
            sequence.rewind(depth)
        return made


def steps(session: Bitwright, kv_cache: str, depth: int, batch: int, steps: int) -> dict[str, Any]:
    """`steps` tokens after `depth` others in each of `batch` sequences at once. Time does not depend on which tokens."""
    sequences = session.sequences(kv_cache, depth, batch)
    before, begin = session.engine.stage_seconds, time.perf_counter()
    for token in range(steps):
        session.engine.read([(sequence, [token]) for sequence in sequences])
    seconds, after = time.perf_counter() - begin, session.engine.stage_seconds
    return {"seconds": seconds, "stages": {name: after[name] - before[name] for name in after}}


def ceilings(_: None, working_set: int, threads: int, seconds: float) -> dict[str, Any]:
    return {
        "bandwidth": _native.read_bandwidth(working_set, threads, seconds),
        "peak": _native.matrix_peak("int8", threads, seconds),
        "instruction": _native.matrix_instruction("int8"),
    }


def quantize(source: str, target: str, kind: str) -> None:
    """Nearest rounding with the MSE fit; `kind` is a scheme such as int4-g32, "int4-g32 unrotated", or "nf4-g64 decoded".

    Decoded: the quantized weights as numbers in fp32, so that the engine rounds none of their levels.
    """
    import bitwright

    scheme, _, how = kind.partition(" ")
    recipe = bitwright.Recipe.uniform(scheme, rotate=how != "unrotated")
    if how != "decoded":
        bitwright.quantize(bitwright.load(source), recipe).save(target)
        return
    with tempfile.TemporaryDirectory() as directory:
        quantized = bitwright.quantize(bitwright.load(source), recipe).save(f"{directory}/codes")
        bitwright.quantize(quantized, bitwright.Recipe.uniform("fp32")).save(target)


if __name__ == "__main__":
    serve(Bitwright, quantize, "bitwright", VERBS | {"steps": steps, "ceilings": ceilings})
