"""Bitwright's engine behind the protocol of `worker.py`."""

from __future__ import annotations

import tempfile

import numpy as np

from bitwright.engine import Engine
from worker import Floats, Tokens, serve


class Bitwright:
    """One loaded artifact. All sizes are tokens."""

    def __init__(self, path: str, threads: int, context: int, activations: str) -> None:
        self.engine = Engine.load(path, threads=threads, context=context, activations=activations)
        self.weight_bytes = self.engine.weight_bytes

    def prefill(self, tokens: Tokens) -> Floats:
        return self.engine.prefill(np.array(tokens, np.int32))

    def decode(self, token: int) -> Floats:
        return self.engine.decode(token)

    def logits(self, tokens: Tokens) -> Floats:
        return self.engine.logits(np.array(tokens, np.int32))


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
    serve(Bitwright, quantize, "bitwright")
