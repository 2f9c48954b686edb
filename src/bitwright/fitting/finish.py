"""What every fitting ends with: scales that are multiples are made so, and a table that is to be learned is learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from bitwright.core import QParams
from bitwright.fitting.learning import learn_table
from bitwright.fitting.measure import Measure
from bitwright.fitting.shared_scales import SHARE
from bitwright.formats.scales import SHARED


def finish(groups: npt.NDArray[np.float32], params: QParams, measure: Measure) -> QParams:
    """(groups, group size) weights and what was fitted to each group -> what the scheme can store.

    Raises `SchemeError` where a shared scale is beyond its type.
    """
    if measure.scheme.scale in SHARED:
        params = SHARE[measure.scheme.scale](groups, params.scale, measure)
    table = params.table if params.table is not None else learn_table(groups, params.scale, measure)
    return replace(params, table=table)
