"""Bitwright's engine behind the protocol of `worker.py`."""

from __future__ import annotations

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
    """Nearest rounding with the MSE fit; `kind` is a scheme such as int4-g32, or "int4-g32 unrotated"."""
    import bitwright

    scheme, _, basis = kind.partition(" ")
    recipe = bitwright.Recipe.uniform(scheme, rotate=basis != "unrotated")
    bitwright.quantize(bitwright.load(source), recipe).save(target)


if __name__ == "__main__":
    serve(Bitwright, quantize, "bitwright")
