"""What calibrating a model will take, before it is done: seconds and peak memory, from the work and this machine's pace.

    products    2 * tokens * weights of the blocks, for each stream of activations
    between     what is done to activations one by one: norms, attention's weights, gates, types changed
    moments     tokens * columns^2 for each input (a symmetric product), twice that more where drift is observed
    rounding    rows * columns^2 a matrix, times what the method does with it, scales and the moments' root included
    distilling  eight products a pass with blocks and head: forwards twice, backwards twice the work of forwards
    transforms  products and moments once more for each that observes, and for each try a product with a layer's moments
    writing     tokens that the model has still to write, at the pace of reading its weights, or of a matrix unit

Each pace is measured for a fraction of a second. Memory is the residual stream, the widest input and what one layer takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from bitwright import _native
from bitwright.core import QParams, Scheme
from bitwright.models.architecture import LAYER_MATRICES
from bitwright.models.base import LanguageModel
from bitwright.rounding.gptq import gptq
from bitwright.rounding.moments import Moments

BASE_BYTES = 450_000_000  # Python, torch and their working memory
BETWEEN = 18  # visits to each activation between products, of the width of the stream or of the MLP
PASSES = {"gptq": 1.0, "gptaq": 2.0, "gptq-scales": 20.0, "refine": 12.0, "guided": 12.0}  # multiply-adds over those of GPTQ
TOGETHER = 0.45  # of the time of a token that is written alone
BESIDE_PRODUCTS = 10  # times what the products of a written token take on a matrix unit
PROBE_TOKENS = 2048
STEP_TOKENS, HEAD_TOKENS = 2048, 256  # of distillation, whose module needs torch


@dataclass(frozen=True)
class Forecast:
    """Bytes of tensors written; `seconds` without the writing of text, `writing_seconds` for it; peak resident bytes."""

    size_bytes: int
    seconds: float
    writing_seconds: float
    peak_rss_bytes: int


@dataclass(frozen=True)
class Work:
    """Which matrices are rounded by their inputs: name -> method, and what is observed ("gram" or "cross")."""

    methods: Mapping[str, str]
    needs: Mapping[str, str]
    shape: tuple[int, int]  # windows, tokens in each
    unwritten: int  # tokens
    size_bytes: int
    observations: int = 0  # transforms that observe inputs
    searches: int = 0  # tries of each matrix that they make
    distill: int = 0  # passes over the windows


def forecast(model: LanguageModel, work: Work) -> Forecast:
    """Raises nothing of its own."""
    if not work.methods and not work.observations and not work.distill:  # tensor by tensor, at the pace of the disk
        return Forecast(work.size_bytes, 0.0, 0.0, _largest_bytes(model) * 4)
    streams = 2 if "cross" in work.needs.values() else 1
    tokens = work.shape[0] * work.shape[1]
    columns = {place.name: model.shape(place.name)[1] for place in model.roles().values() if len(model.shape(place.name)) == 2}
    body = sum(rows * n for rows, n in _layer_shapes(model))
    inputs = _input_widths(model)
    product, between, moment, compensate = _paces(model)
    observed = tokens * sum(n * n for n in inputs) * (1 if streams == 1 else 3)
    rounding = sum(model.shape(name)[0] * columns[name] ** 2 * PASSES.get(method, 1.0) for name, method in work.methods.items())
    streams_walked = (streams if work.methods else 0) + work.observations
    observed = observed * bool(work.methods) + work.observations * tokens * sum(n * n for n in inputs)
    searching = work.searches * sum(2 * rows * n * n for rows, n in _layer_shapes(model))
    seconds = (2 * tokens * body * streams_walked + searching) / product + observed / moment + rounding / compensate
    seconds += streams_walked * tokens * BETWEEN * sum(inputs) / len(inputs) * model.architecture.layers / between
    trained = body + int(np.prod(model.shape(model.roles()["head", -1].name)))
    seconds += (8 * work.distill + 2 * bool(work.distill)) * tokens * trained / product
    peak = _peak_bytes(model, tokens, streams) + bool(work.distill) * _distilled_bytes(model, tokens, body)
    return Forecast(work.size_bytes, seconds, work.unwritten * _token_seconds(body, trained, product), peak)


def _layer_shapes(model: LanguageModel) -> list[tuple[int, int]]:
    names = {place.name for (role, _), place in model.roles().items() if role in LAYER_MATRICES}
    return [(model.shape(name)[0], model.shape(name)[1]) for name in names]


def _input_widths(model: LanguageModel) -> list[int]:
    """Columns of each input that is observed, for all layers."""
    architecture = model.architecture
    layer = [architecture.hidden_size, architecture.heads * architecture.head_dim, architecture.hidden_size]
    return (layer + [architecture.intermediate_size]) * architecture.layers + [architecture.hidden_size]


def _peak_bytes(model: LanguageModel, tokens: int, streams: int) -> int:
    architecture = model.architecture
    widest = max(architecture.intermediate_size, architecture.heads * architecture.head_dim)
    stream = tokens * (6 * architecture.hidden_size + 2 * widest)
    return BASE_BYTES + streams * stream + 3 * _largest_bytes(model) + 6 * 8 * widest**2


def _distilled_bytes(model: LanguageModel, tokens: int, body: int) -> int:
    """Levels, the original's last activations, those between blocks of one step, two heads, and logits."""
    architecture = model.architecture
    vocabulary, hidden = model.shape(model.roles()["head", -1].name)
    between = STEP_TOKENS * 4 * hidden * architecture.layers
    return 2 * body + 2 * tokens * hidden + between + 4 * vocabulary * hidden + 24 * HEAD_TOKENS * vocabulary


def _largest_bytes(model: LanguageModel) -> int:
    """Of one tensor as float32."""
    return max(4 * int(np.prod(model.shape(name))) for name in model.names())


def _paces(model: LanguageModel) -> tuple[float, float, float, float]:
    """Operations a second: products of activations and weights, visits to activations, symmetric products, GPTQ's steps."""
    import torch

    from bitwright.calibration.cores import CORES
    from bitwright.calibration.decoder import product_dtype, transposed_product
    from bitwright.calibration.sequential import bfloat16_gram

    n = min(model.architecture.hidden_size, 1024)
    x, w = torch.randn(PROBE_TOKENS, n).to(product_dtype()), torch.randn(n, n).to(product_dtype())
    plain = x.float().numpy()
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as each of the cores works: see cores.py
    product = CORES * 2 * PROBE_TOKENS * n * n / _seconds(lambda: torch.nn.functional.linear(x, w))
    visits = CORES * PROBE_TOKENS * n / _seconds(lambda: torch.nn.functional.silu(x))
    torch.set_num_threads(before)
    tiles = product_dtype() == torch.bfloat16 and _native.has_bfloat16_tiles()
    observed = _seconds(lambda: bfloat16_gram(x, None) if tiles else transposed_product(plain, plain, product_dtype()))
    moment = PROBE_TOKENS * n * n / observed
    gram, scheme, rows = (plain.T @ plain).astype(np.float64), Scheme.parse("int4-channel"), np.ascontiguousarray(plain[:n])
    scales = QParams(np.abs(rows).max(1) / 7)
    steps = _seconds(lambda: gptq(rows, scheme, lambda *_: scales, Moments(gram)))
    return product, visits, moment, len(rows) * n * n / steps


def _token_seconds(body: int, weights: int, product: float) -> float:
    """One token reads all weights, a byte each, but many windows are written together; a matrix unit then waits for the rest."""
    if _native.isa() == "amx":
        return BESIDE_PRODUCTS * 2 * weights / product
    block = np.ones(2**23, np.float32)
    return TOGETHER * body / (block.nbytes / _seconds(block.sum))


def _seconds(work: Callable[[], object]) -> float:
    """Of one call: the median of five, after one to warm up."""
    work()
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return max(sorted(times)[2], 1e-9)
