"""How fast this machine does what calibration consists of: each pace by a piece of the work itself, a fraction of a second long.

Rounding a matrix costs rows * columns * (a + b * columns) seconds: what is done to each weight, and what each weight does to
the others of its row. a and b are those of the method itself, on two small matrices in int4-g64 with the fitting mse; other
schemes and fittings may take longer.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace

import numpy as np
import numpy.typing as npt

from bitwright import _native
from bitwright.core import Scheme
from bitwright.fitting import FITTING
from bitwright.models.base import LanguageModel
from bitwright.rounding import ROUNDING
from bitwright.rounding.moments import Moments

Floats = npt.NDArray[np.float32]

THREADS = min(8, len(os.sched_getaffinity(0)))  # that share a matrix's rows in rounding without moments: quantization/matrix.py
TOKENS = 2048
VOCABULARY = 4096  # rows of a head at most
ROWS, COLUMNS = 64, (256, 768)  # of the matrices that are rounded
DISK_BYTES = 2**23
LONG = 0.1  # seconds after which a piece of work is not begun again
ROUNDS, PAUSE = 4, 0.4  # of what is short and counts most, and seconds between: a shared machine is slow for seconds
TOGETHER = 0.45  # of the time of a token that is written alone
BESIDE_PRODUCTS = 10  # times what the products of a written token take on a matrix unit


@dataclass(frozen=True)
class Walking:
    """Operations a second of all cores: products of activations and weights, visits to activations, symmetric products."""

    product: float
    between: float
    moment: float

    @classmethod
    def of(cls, model: LanguageModel) -> Walking:
        """At the model's width, the best of ROUNDS. Needs torch."""
        found = [cls._once(model)]
        for _ in range(ROUNDS - 1):
            time.sleep(PAUSE)
            found.append(cls._once(model))
        return cls(*(max(paces) for paces in zip(*map(astuple, found), strict=True)))

    @classmethod
    def _once(cls, model: LanguageModel) -> Walking:
        import torch

        from bitwright.calibration.cores import CORES
        from bitwright.calibration.decoder import product_dtype, transposed_product
        from bitwright.calibration.sequential import bfloat16_gram

        n = min(model.architecture.hidden_size, 1024)
        x, w = torch.randn(TOKENS, n).to(product_dtype()), torch.randn(n, n).to(product_dtype())
        plain = x.float().numpy()
        before = torch.get_num_threads()
        torch.set_num_threads(1)  # as each of the cores works: see cores.py
        product = CORES * 2 * TOKENS * n * n / _seconds(lambda: torch.nn.functional.linear(x, w))
        visits = CORES * TOKENS * n / _seconds(lambda: torch.nn.functional.silu(x))
        torch.set_num_threads(before)
        tiles = product_dtype() == torch.bfloat16 and _native.has_bfloat16_tiles()
        observed = _seconds(lambda: bfloat16_gram(x, None) if tiles else transposed_product(plain, plain, product_dtype()))
        return cls(product, visits, TOKENS * n * n / observed)


@dataclass(frozen=True)
class Rounding:
    """Seconds that one method takes for each weight: `alone`, and `a_column` for each column of its row."""

    alone: float
    a_column: float

    @classmethod
    def of(cls, method: str) -> Rounding:
        """A row of `ROUNDING`. What follows from an input's moments alone is not counted: see `factoring`."""
        few, many = COLUMNS
        each = [_seconds(_rounding(method, n)) / (ROWS * n) for n in COLUMNS]
        a_column = max(0.0, (each[1] - each[0]) / (many - few))
        return cls(max(0.0, each[0] - few * a_column), a_column)

    def seconds(self, rows: int, columns: int) -> float:
        return rows * columns * (self.alone + columns * self.a_column)


def _rounding(method: str, columns: int) -> Callable[[], object]:
    weights, need = _weights(ROWS, columns), ROUNDING[method].needs
    moments = _moments(columns, need == "cross") if need else None
    if moments is not None:  # what follows from them is found now, so that it is not counted
        assert moments.factor is not None and (moments.drift is None) == (need != "cross")
    return lambda: ROUNDING[method](weights, Scheme.parse("int4-g64"), FITTING["mse"], moments)


def factoring(drifted: bool) -> float:
    """Seconds for each columns^3 of an input in which its moments are factored, and its drift found where it is observed."""
    moments = _moments(COLUMNS[1], drifted)

    def factor() -> object:
        fresh = replace(moments)
        return fresh.factor, fresh.drift

    return _seconds(factor) / COLUMNS[1] ** 3


def guiding_head(model: LanguageModel) -> float:
    """Seconds for each token that the head takes in guidance.py. Needs torch."""
    import torch

    from bitwright.calibration.decoder import Decoder, product_dtype
    from bitwright.calibration.guidance import HEAD_TOKENS, drawn_gradient

    rows, columns = model.shape(model.roles()["head", -1].name)
    weights = torch.from_numpy(_weights(min(rows, VOCABULARY), columns))
    x, gain, drawing = torch.randn(HEAD_TOKENS, columns), torch.ones(columns), torch.Generator().manual_seed(0)
    decoder = Decoder(model.architecture, HEAD_TOKENS, product_dtype())
    return _seconds(lambda: drawn_gradient(decoder, x, gain, weights, drawing)) / HEAD_TOKENS * rows / len(weights)


def reading(model: LanguageModel) -> float:
    """Weights a second that the model's file gives."""
    name = max(model.names(), key=lambda name: int(np.prod(model.shape(name))))
    tensor, row = model.stored(name), int(np.prod(model.shape(name)[1:]))
    rows = max(1, min(tensor.shape[0], DISK_BYTES // (4 * row)))
    return rows * row / _seconds(lambda: tensor.rows(0, rows).dequantize())


def writing() -> float:
    """Bytes a second that a file takes."""
    block = bytes(DISK_BYTES)
    with tempfile.TemporaryFile() as file:
        return len(block) / _seconds(lambda: (file.seek(0), file.write(block)))


def text_token(body: int, weights: int, product: float) -> float:
    """Seconds of one token of calibration text, of a model of `weights` with those of the blocks, `body`, among them.

    One token reads all weights of the blocks, a byte each, but many windows are written together; a matrix unit then waits for
    the rest. `product` is of `Walking`.
    """
    if _native.isa() == "amx":
        return BESIDE_PRODUCTS * 2 * weights / product
    block = np.ones(2**23, np.float32)
    return TOGETHER * body / (block.nbytes / _seconds(block.sum))


def _moments(columns: int, drifted: bool) -> Moments:
    x = _weights(2 * columns, columns).astype(np.float64)
    return Moments(x.T @ x, 0.01 * x.T @ x if drifted else None)


def _weights(rows: int, columns: int) -> Floats:
    """Of the size that a layer's have: logits of larger ones would leave probabilities so small that they take longer."""
    return np.random.default_rng(0).standard_normal((rows, columns), dtype=np.float32) / np.float32(np.sqrt(columns))


def _seconds(work: Callable[[], object]) -> float:
    """Of one call, after one to warm up: the least of as many as begin within LONG, five at most."""
    work()
    times: list[float] = []
    while not times or (sum(times) < LONG and len(times) < 5):  # noqa: PLR2004
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return max(min(times), 1e-9)
