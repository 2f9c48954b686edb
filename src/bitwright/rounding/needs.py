"""What a method must know of a layer's inputs, by name; observers/gram.py has the sums.

    ""        nothing                                 "gram"           H
    "guided"  H, with tokens weighed                  "cross"          H and D, how far the inputs have drifted
                                                      "guided cross"   both, with tokens weighed

Guidance weighs tokens (calibration/guidance.py), so any method that looks at inputs can have it: what it does with H stays.
"""

from __future__ import annotations

_GUIDED = {"gram": "guided", "cross": "guided cross"}


def with_guidance(need: str) -> str:
    """The same sums with tokens weighed; nothing stays nothing."""
    return _GUIDED.get(need, need)


def is_guided(need: str) -> bool:
    """Whether tokens are weighed."""
    return need in _GUIDED.values()


def has_drift(need: str) -> bool:
    """Whether D is among it, for which the float model's activations walk beside the quantized model's."""
    return need in ("cross", "guided cross")
