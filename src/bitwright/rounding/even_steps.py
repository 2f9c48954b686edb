"""Where methods begin that learn, from nearest rounding's grids, which of the even steps around it a weight takes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bitwright.core import QTensor, Scheme
from bitwright.errors import SchemeError
from bitwright.fitting import Fit
from bitwright.formats import FORMATS
from bitwright.formats.checks import require_finite
from bitwright.formats.table import Table
from bitwright.rounding.grids import Codes, Grids
from bitwright.rounding.nearest import nearest

Floats = npt.NDArray[np.float32]
Learn = Callable[[Floats, Grids, Codes], QTensor]  # from the weights, the fitted grids and the nearest codes


def learned(weights: Floats, scheme: Scheme, fit: Fit, learn: Learn) -> QTensor:
    """What `learn` makes of nearest rounding; formats without a scale are rounded to nearest. Raises `SchemeError`."""
    require_even_steps(scheme)
    values = require_finite(weights)
    start = nearest(values, scheme, fit)
    return start if start.params is None else learn(values, Grids.of(start.params, values.shape, scheme), start.codes)


def require_even_steps(scheme: Scheme) -> None:
    """Raises `SchemeError` for a table of levels."""
    if isinstance(FORMATS[scheme.format], Table):
        raise SchemeError(
            f"adaround and signround learn between even steps, but {scheme.format} is a table of levels;"
            " choose gptq, gptaq, refine, nearest or stochastic"
        )
