"""Which code each weight gets, one row a method: `ROUNDING[name](weights, scheme, fit)`, with moments where it needs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bitwright.core import QTensor, Scheme
from bitwright.fitting import Fit
from bitwright.rounding.adaround import adaround
from bitwright.rounding.gptaq import gptaq
from bitwright.rounding.gptq import gptq
from bitwright.rounding.guided import guided
from bitwright.rounding.moments import Moments
from bitwright.rounding.nearest import nearest
from bitwright.rounding.needs import with_guidance
from bitwright.rounding.refine import refine
from bitwright.rounding.scale_search import gptq_scales
from bitwright.rounding.signround import signround
from bitwright.rounding.stochastic import stochastic

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Plain:
    """A method that looks at the weights alone."""

    round: Callable[[Floats, Scheme, Fit], QTensor]
    needs: str = ""
    even_steps: bool = False

    def __call__(self, weights: Floats, scheme: Scheme, fit: Fit, moments: Moments | None = None) -> QTensor:
        return self.round(weights, scheme, fit)


@dataclass(frozen=True)
class Calibrated:
    """A method that looks at a layer's inputs: their "gram", "cross" moments, too, or a "guided" gram. See needs.py."""

    round: Callable[[Floats, Scheme, Fit, Moments], QTensor]
    needs: str = "gram"
    even_steps: bool = False  # formats given by a table of levels are refused

    def __call__(self, weights: Floats, scheme: Scheme, fit: Fit, moments: Moments | None = None) -> QTensor:
        """Without moments the inputs are taken to be alike and independent."""
        return self.round(weights, scheme, fit, moments or Moments.identity(weights.shape[1]))


ROUNDING: dict[str, Plain | Calibrated] = {
    "nearest": Plain(nearest),
    "stochastic": Plain(stochastic),
    "gptq": Calibrated(gptq),
    "gptaq": Calibrated(gptaq, needs="cross"),
    "gptq-scales": Calibrated(gptq_scales),
    "refine": Calibrated(refine),
    "guided": Calibrated(guided, needs="guided"),
    "adaround": Calibrated(adaround, even_steps=True),
    "signround": Calibrated(signround, even_steps=True),
}


def needs_of(method: str, guidance: bool = False) -> str:
    """What a row of `ROUNDING` must know of a layer's inputs, as needs.py names it."""
    needs = ROUNDING[method].needs
    return with_guidance(needs) if guidance else needs
