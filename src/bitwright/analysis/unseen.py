"""A text that calibration saw would flatter the model, so it is refused, before any work, unless the user says otherwise.

Everything that measures a model on a text asks here first: `evaluate`, tasks, comparisons, analyses, and the proof of a plan.
How a text is known again, and what a model remembers, is in calibration/marks.py.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from bitwright.calibration.marks import Marks, seen_share
from bitwright.errors import TextError

Tokens = npt.NDArray[np.int32]

ELSEWHERE = "evaluate on another text, or pass --allow-seen"


def require_unseen(windows: Iterable[Tokens], marks: Marks, cure: str = ELSEWHERE) -> None:
    """`marks` are those of what calibration saw. Raises `TextError` where some of the windows (tokens,) are known from it."""
    share = seen_share(windows, marks)
    if share > 0:
        raise TextError(f"calibration saw {100 * share:.0f} % of this text; {cure}")
