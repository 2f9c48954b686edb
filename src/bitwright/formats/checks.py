"""What every format refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.errors import NonFiniteError


def require_finite(x: npt.NDArray[Any], what: str = "the tensor") -> npt.NDArray[np.float32]:
    """Contiguous float32 with every value finite; raises `NonFiniteError` that counts the others."""
    values = np.ascontiguousarray(x, dtype=np.float32)
    # A sum is finite only if every term is, unless it overflows: one fast pass, the exact count only when in doubt.
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = values.size and not np.isfinite(values.sum(dtype=np.float64))
    if suspicious:
        bad = int(values.size - np.isfinite(values).sum())
        if bad:
            raise NonFiniteError(
                f"{what} holds {bad} NaN or infinite value(s) of {values.size}; mend the model before quantizing it"
            )
    return values
