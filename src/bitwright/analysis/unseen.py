"""A text that calibration saw would flatter the model, so it is refused, before any work, unless the user says otherwise.

Everything that measures a model on a text asks here first: `evaluate`, tasks, comparisons, analyses, and the proof of a plan.
How a text is known again, and what a model remembers, is in calibration/marks.py.
"""

from __future__ import annotations

from bitwright.errors import TextError

ELSEWHERE = "evaluate on another text, or pass --allow-seen"


def require_unseen(share: float, cure: str = ELSEWHERE) -> None:
    """`share` of the text is known from calibration, as `seen_share` finds it. Raises `TextError` unless that is 0."""
    if share > 0:
        raise TextError(f"calibration saw {100 * share:.0f} % of this text; {cure}")
