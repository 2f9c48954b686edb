"""Kinds are sums over the tensors that the attribution measured, and the verdicts are about these."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

pytest.importorskip("torch", exc_type=ImportError)

import attribution
from bitwright.analysis.attribution import Attribution, Share
from bitwright.quantization import QuantizedModel

SHAPES = {"v.0": (2, 8), "v.1": (2, 8), "up.0": (16, 8), "up.1": (16, 8)}
LOSSES = {"v.0": 0.3, "v.1": 0.1, "up.0": 0.25, "up.1": 0.25}


def found() -> Attribution:
    shares = [
        Share(name, name[:-2], int(name[-1]), loss, (loss - 0.01, loss + 0.01), 1.1 * loss, 0.9 * loss)
        for name, loss in LOSSES.items()
    ]
    return Attribution(tuple(shares), 0.99, (0.9, 1.1), (), (), 1.0)


def test_kinds_are_sums() -> None:
    quantized = cast(QuantizedModel, SimpleNamespace(shape=SHAPES.get))
    first, second = attribution.kinds_of(quantized, found())
    assert (first["kind"], second["kind"]) == ("v", "up")
    assert [first[name] for name in ("kl", "regained", "estimated")] == pytest.approx([0.4, 0.44, 0.36])
    each = {"kinds": [first, second], "shares": LOSSES, "together": 0.99, "together_interval": (0.9, 1.1), "seconds": 1.0}
    each |= {"sum_of_parts": found().sum_of_parts, "regained_in_sum": 0.99, "rank_correlation": 0.95}
    whole, *verdicts = attribution.lines(each)
    assert whole.startswith("Together 0.99 nats a token (0.9 to 1.1); tensors in sum 0.9, regained in sum 0.99.")
    assert [line.rpartition(": ")[2] for line in verdicts] == ["met"] * 5 and "costs most for its size: v" in verdicts[0]
    lowest = attribution.kind_rows([first, second])[1]
    assert lowest[1] == "88.9 %" and lowest[4] == "0.625 times"
