"""The noise floor of KL: how far the reference is from itself when it computes in half precision, as most runtimes do.

The slow twin of the engine (engine/reference.py) runs once more, with weights in fp16 and with the result of every product,
sum and quotient of two tensors rounded to fp16, sums of products themselves in fp32: what tensor cores do. Softmax and the
means in norms stay in fp32, as PyTorch keeps them; logits are fp16. A KL of this size says nothing about quantization.

It is measured on the first tokens of the text alone, since numpy is slow, and kept with the reference's other states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bitwright.analysis.reference_cache import HiddenCache, hidden_states
from bitwright.engine.reference import forward

if TYPE_CHECKING:
    from bitwright.models.base import LanguageModel

TOKENS = 128
IDENTITY = "fp16 by engine/reference.py, 1"  # raise the number when what is rounded changes

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


def divergence(model: LanguageModel, window: npt.NDArray[np.int32]) -> Doubles | None:
    """(tokens,) KL in nats at up to 128 positions of a window, from the cache or into it; None where fp16 overflows."""
    tokens = window[:-1][:TOKENS]
    cache = HiddenCache.from_environment()
    rows = hidden_states([tokens], lambda ids: _divergence(model, ids)[:, None], 1, [model.fingerprint(), IDENTITY], cache)
    kl = np.asarray(next(rows), np.float64)[:, 0]
    list(rows)  # lets the cache finish its entry
    return kl if np.isfinite(kl).all() else None


def _divergence(model: LanguageModel, tokens: npt.NDArray[np.int32]) -> Floats:
    """Both runs in full."""
    with np.errstate(over="ignore", invalid="ignore"):
        half = np.asarray(forward(_Rounding(model), tokens))  # type: ignore[arg-type]
        kl = np.empty(len(tokens), np.float32)
        for row, (single, rounded) in enumerate(zip(forward(model, tokens), half, strict=True)):
            p, q = _log_softmax(single), _log_softmax(rounded)
            kl[row] = max(0.0, float(np.exp(p) @ (p - q))) if np.isfinite(q).all() else np.nan
    return kl


def _log_softmax(logits: Floats) -> Doubles:
    shifted = logits.astype(np.float64) - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()), np.float64)


class _Half(np.ndarray[Any, np.dtype[np.float32]]):
    """float32 numbers that fp16 has. Products, sums, differences and quotients with one are such again, all else is plain."""

    ROUNDED = (np.matmul, np.add, np.subtract, np.multiply, np.divide)

    def __array_ufunc__(self, ufunc: np.ufunc, method: Any, *inputs: Any, **kwargs: Any) -> Any:  # numpy's protocol
        result = getattr(ufunc, method)(*map(np.asarray, inputs), **kwargs)
        if method != "__call__" or ufunc not in self.ROUNDED or "out" in kwargs:  # numpy's means divide in place
            return result
        return result.astype(np.float16).astype(np.float32).view(_Half)


class _Rounding:
    """A model whose tensors are read as `_Half`: nothing else of it is asked for by the twin."""

    def __init__(self, model: LanguageModel) -> None:
        self.architecture, self.roles, self._model = model.architecture, model.roles, model

    def read(self, name: str) -> _Half:
        values = self._model.read(name)
        if self._model.scheme_of(name) != "fp16":
            values = values.astype(np.float16).astype(np.float32)
        return values.view(_Half)
