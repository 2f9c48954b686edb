"""Every figure against its definition in plain loops and double precision, for all formats."""

from __future__ import annotations

import json
import math

import numpy as np
import numpy.typing as npt
import pytest

from bitwright.analysis import metrics
from bitwright.analysis.metrics import tensor_metrics, weight_histogram
from bitwright.core import Choice, QParams, QTensor, Scheme
from bitwright.formats import FORMATS
from bitwright.formats.hadamard import rotate_reference
from bitwright.models.base import Dense, Packed, WithMinimum
from bitwright.quantization.matrix import quantize_matrix
from laws.strategies import every_scheme

Floats = npt.NDArray[np.float32]
ROWS, COLUMNS = 6, 96


def weights_of(seed: int = 3) -> Floats:
    random = np.random.default_rng(seed)
    made = random.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    made[:, ::31] *= 8
    return made


def gram_of(columns: int = COLUMNS) -> npt.NDArray[np.float64]:
    inputs = np.random.default_rng(5).standard_normal((40, columns)) * np.linspace(0.1, 3, columns)
    return inputs.T @ inputs / len(inputs)


def stored(weights: Floats, scheme: Scheme, rotate: bool = False) -> Packed:
    made = quantize_matrix("w", Dense("fp32", weights), Choice("*", scheme, fitting="mse", rotate=rotate))
    assert isinstance(made, Packed)
    return made


def levels_by_group(tensor: QTensor) -> list[list[float]]:
    """For each group what its codes stand for, in the weights' unit; NaN for codes that stand for nothing."""
    assert tensor.params is not None
    params, grid = tensor.params, FORMATS[tensor.scheme.format]
    tables = grid.decode(np.arange(1 << grid.bits))[None, :] if params.table is None else params.table
    groups = []
    for group, scale in enumerate(params.scale):
        table = tables[group * len(tables) // len(params.scale)].astype(np.float64)
        zero_point = 0.0 if params.zero_point is None else params.zero_point[group]
        groups.append([(level - zero_point) * float(scale) for level in table])
    return groups


def slow(weights: Floats, packed: Packed, gram: npt.NDArray[np.float64]) -> dict[str, float]:
    tensor, w = packed.qtensor(), weights.astype(np.float64)
    q = packed.dequantize().astype(np.float64)
    e, clipped, used = q - w, 0, set(tensor.codes.reshape(-1).tolist())
    turned = rotate_reference(weights, packed.rotation) if packed.rotation else w
    for group, levels in zip(turned.reshape(tensor.params.scale.size, -1), levels_by_group(tensor), strict=True):
        distinct = sorted({level for level in levels if math.isfinite(level)})
        low, high = distinct[0], distinct[-1]
        below, above = low - (distinct[1] - low) / 2, high + (high - distinct[-2]) / 2
        clipped += sum(1 for x in group if x < below or x > above)
    grid = FORMATS[tensor.scheme.format]
    numbers = grid.decode(np.arange(1 << grid.bits)).tolist()
    if tensor.params.table is None:
        meant = {code for code, x in enumerate(numbers) if math.isfinite(x) and x not in numbers[:code]}
    else:
        meant = set(range(1 << grid.bits))
    return {
        "sqnr_db": 10 * math.log10((w**2).sum() / (e**2).sum()),
        "cosine": (w * q).sum() / math.sqrt((w**2).sum() * (q**2).sum()),
        "largest_error": np.abs(e).max(),
        "clipped_share": clipped / w.size,
        "unused_share": 1 - len(used & meant) / len(meant),
        "output_error": np.trace(e @ gram @ e.T) / np.trace(w @ gram @ w.T),
    }


@pytest.mark.parametrize("scheme", every_scheme(groups=(-1, 0, 32)), ids=str)
def test_every_figure_is_its_definition(scheme: Scheme, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, gram = weights_of(), gram_of()
    monkeypatch.setattr(metrics, "BLOCK_WEIGHTS", 4 * COLUMNS)  # two blocks, of 4 rows and of 2
    for rotate in (False, True):
        packed = stored(weights, scheme, rotate)
        assert tensor_metrics(weights, packed, gram).to_dict() == pytest.approx(slow(weights, packed, gram), rel=1e-5, abs=1e-12)
        assert tensor_metrics(weights, packed.qtensor(), gram).to_dict() == pytest.approx(
            slow(weights, packed, gram), rel=1e-5, abs=1e-12
        )


def tensor_of(codes: list[int], scheme: str, scale: list[float], zero_point: list[float] | None = None) -> QTensor:
    offset = None if zero_point is None else np.float32(zero_point)
    return QTensor(np.uint8([codes]), QParams(np.float32(scale), offset), Scheme.parse(scheme))


def test_half_a_step_beyond_the_grid_is_not_clipped_and_more_is() -> None:
    tensor = tensor_of([3, 3, 0, 0], "int2-channel", [2.0])  # levels -4, -2, 0, 2
    assert tensor_metrics(np.float32([[3, 2, -5, 0]]), tensor).clipped_share == 0
    assert tensor_metrics(np.float32([[3.001, 2, -5.001, 0]]), tensor).clipped_share == 0.5
    turned = tensor_of([3, 3, 0, 0], "int2-channel", [-2.0])  # levels 4, 2, 0, -2
    assert tensor_metrics(np.float32([[5, -3, -3.001, 5.001]]), turned).clipped_share == 0.5
    moved = tensor_of([3, 3, 0, 0], "int2-channel-affine", [2.0], [-2.0])  # levels 0, 2, 4, 6
    assert tensor_metrics(np.float32([[7, -1, 7.001, -1.001]]), moved).clipped_share == 0.5
    dead = tensor_of([0, 0, 0, 0], "int2-channel", [0.0])
    assert tensor_metrics(np.float32([[0, 1, 0, -1]]), dead).clipped_share == 0.5


def test_codes_that_occur_nowhere() -> None:
    tensor = tensor_of([0, 1, 1, 0], "int2-channel", [1.0])
    assert tensor_metrics(np.float32([[-2, -1, -1, -2]]), tensor).unused_share == 0.5


def test_what_is_unchanged_and_what_is_gone() -> None:
    weights = np.float32([[1, -2, 3, 4]])
    same = tensor_metrics(weights, Dense("fp32", weights), np.eye(4))
    assert (same.sqnr_db, same.cosine, same.largest_error, same.output_error) == (math.inf, 1, 0, 0)
    assert same.clipped_share is None and same.unused_share is None
    gone = tensor_metrics(weights, Dense("fp32", 0 * weights), np.eye(4))
    assert (gone.sqnr_db, gone.cosine, gone.largest_error, gone.output_error) == (0, 0, 4, 1)
    from_nothing = tensor_metrics(0 * weights, Dense("fp32", weights), np.eye(4))
    assert (from_nothing.sqnr_db, from_nothing.cosine, from_nothing.output_error) == (-math.inf, 0, math.inf)
    assert json.loads(json.dumps(from_nothing.to_dict(), allow_nan=False))["output_error"] is None
    assert tensor_metrics(weights, Dense("fp32", weights)).output_error is None
    half = tensor_metrics(weights_of(), Dense("fp16", weights_of().astype(np.float16)))
    assert 60 < half.sqnr_db < 90 and half.clipped_share is None


def test_full_precision_in_every_guise() -> None:
    codes = np.random.default_rng(1).integers(0, 16, (2, 64)).astype(np.uint8)
    from bitwright.formats.packing import pack

    gguf = WithMinimum(4, pack(codes, 4), np.full(4, 0.5, np.float16), np.full(4, -4, np.float32))
    weights = gguf.dequantize()
    half = QTensor(weights.astype(np.float16).view(np.uint16), None, Scheme("fp16"))
    for tensor in (gguf, half):
        assert tensor_metrics(weights, tensor).sqnr_db == math.inf
        found = weight_histogram(weights, tensor, 8)
        assert found.levels.size == 0 and found.counts.sum() == weights.size


@pytest.mark.parametrize(
    "spelling", ["int4-tensor-affine", "int4-g32", "int3-g32-affine", "nf4-channel", "any3-g32", "fp4e2m1-tensor"]
)
@pytest.mark.parametrize("rotate", [False, True])
def test_the_histogram_counts_every_weight_on_its_own_groups_grid(
    spelling: str, rotate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "BLOCK_WEIGHTS", 4 * COLUMNS)
    weights, scheme = weights_of(), Scheme.parse(spelling)
    packed = stored(weights, scheme, rotate)
    tensor = packed.qtensor()
    turned = rotate_reference(weights, packed.rotation) if packed.rotation else weights.astype(np.float64)
    groups, zero = turned.reshape(tensor.params.scale.size, -1), tensor.params.zero_point
    on_grid = groups if scheme.group == -1 else groups / tensor.params.scale[:, None] + (0 if zero is None else zero[:, None])

    found = weight_histogram(weights, packed, 50)
    assert found.counts.sum() == weights.size and len(found.counts) == 50
    assert np.abs(found.counts - np.histogram(on_grid, found.edges)[0]).sum() <= 2  # float32 rotation may cross an edge
    assert found.edges[0] <= min(on_grid.min(), found.levels[0]) + 1e-3
    assert found.edges[-1] >= max(on_grid.max(), found.levels[-1]) - 1e-3
    assert np.array_equal(found.levels, weight_histogram(weights, tensor, 50).levels)
    if scheme.group == -1:  # then levels are weights that occur
        assert np.isin(tensor.dequantize() if not rotate else [], found.levels.astype(np.float32)).all()
    elif tensor.params.table is None:
        assert set(found.levels) == set(FORMATS[scheme.format].decode(np.arange(1 << FORMATS[scheme.format].bits)).tolist())


def test_a_histogram_of_nothing() -> None:
    dead = QTensor(np.zeros((2, 4), np.uint8), QParams(np.zeros(2, np.float32)), Scheme("int2"))
    assert weight_histogram(np.ones((2, 4), np.float32), dead, 4).counts.sum() == 0
    flat = weight_histogram(np.zeros((2, 4), np.float32), Dense("fp32", np.zeros((2, 4), np.float32)), 4)
    assert flat.counts.sum() == 8 and (np.diff(flat.edges) > 0).all()
