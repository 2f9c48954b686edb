"""GPTQ, GPTAQ and refinement: equal to slow loops code for code, and to nearest rounding where inputs say nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from bitwright.core import QTensor, Scheme
from bitwright.fitting import FITTING
from bitwright.formats import FORMATS
from bitwright.rounding import ROUNDING
from bitwright.rounding.gptq import compensate, compensate_reference
from bitwright.rounding.grids import Grids
from bitwright.rounding.moments import Moments, inverse_upper
from bitwright.rounding.nearest import nearest
from bitwright.rounding.refine import descend, descend_reference, refined, refitted, row_errors
from laws.strategies import matrices

Floats = npt.NDArray[np.float32]
FIT = FITTING["mse"]
SCHEMES = [
    Scheme.parse(spelling)
    for spelling in (
        "int4-g32",
        "int4-g64-affine",
        "int3-channel",
        "int2-g32-affine",
        "int8-tensor",
        "fixed8-g64",
        "int4-g48-sbf16",
    )
]
CALIBRATED = [name for name, method in ROUNDING.items() if method.needs]


def moments(columns: int, seed: int = 5, drift: bool = True) -> Moments:
    """Of correlated inputs of very different sizes, a few of them always zero."""
    random = np.random.default_rng(seed)
    mixing = random.standard_normal((columns, columns)) * np.exp(random.standard_normal(columns))
    x = random.standard_normal((3 * columns, columns)) @ mixing
    x[:, :: columns // 3] = 0
    original = x + 0.2 * random.standard_normal(x.shape)
    return Moments(x.T @ x / len(x), (original - x).T @ x / len(x) if drift else None)


def weights(rows: int, columns: int, seed: int = 6) -> Floats:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("method", ["gptq", "gptaq"])
def test_inputs_that_say_nothing_leave_nearest(method: str, scheme: Scheme) -> None:
    for name, matrix in matrices():
        expected, found = nearest(matrix, scheme, FIT), ROUNDING[method](matrix, scheme, FIT)
        assert np.array_equal(found.codes, expected.codes), name
        assert np.array_equal(found.dequantize(), expected.dequantize()), name


def textbook(matrix: Floats, tensor: QTensor, known: Moments, alpha: float) -> npt.NDArray[np.uint8]:
    """GPTQ's and GPTAQ's own recursion, one weight at a time, in float32; nothing of the code under test but the scales."""
    n, order = matrix.shape[1], sorted(range(matrix.shape[1]), key=lambda j: (-known.gram[j, j], j))
    damped = known.gram + known.damping * np.mean(np.diag(known.gram)) * np.eye(n)
    upper = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T
    assert np.allclose(upper, known.factor, rtol=1e-4, atol=1e-6 * upper.max())
    factor = known.factor  # the same numbers, or a tie far down the loop could fall otherwise
    assert known.cross is not None and tensor.params is not None
    drift = alpha * np.triu(known.cross[np.ix_(order, order)] @ factor.astype(np.float64).T, 1) @ factor.astype(np.float64)
    drift = drift.astype(np.float32)
    grid = FORMATS[tensor.scheme.format]
    size = tensor.scheme.group_size(matrix.shape)
    codes = np.zeros(matrix.shape, np.uint8)
    for r in range(len(matrix)):
        row = [matrix[r, j] for j in order]
        for j, column in enumerate(order):
            group = (r * n + column) // size
            scale = tensor.params.scale[group]
            zero_point = np.float32(0) if tensor.params.zero_point is None else tensor.params.zero_point[group]
            level = min(max(np.rint(row[j] / scale) + zero_point, grid.lowest), grid.highest)  # type: ignore[attr-defined]
            codes[r, column] = level - grid.lowest  # type: ignore[attr-defined]
            w = row[j]
            error = (w - (level - zero_point) * scale) / factor[j, j]
            for k in range(j + 1, n):
                row[k] = row[k] - error * factor[j, k]
                if alpha:
                    row[k] = row[k] + w * drift[j, k]
    return codes


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("method", ["gptq", "gptaq"])
def test_equals_the_textbook_code_for_code(method: str, scheme: Scheme) -> None:
    matrix, known = weights(3, 192), moments(192)
    found = ROUNDING[method](matrix, scheme, FIT, known)
    expected = textbook(matrix, found, known, known.alpha if method == "gptaq" else 0.0)
    assert np.array_equal(found.codes, expected)
    assert not np.array_equal(found.codes, nearest(matrix, scheme, FIT).codes)


@pytest.mark.parametrize("columns", [16, 48, 96, 240])
@pytest.mark.parametrize("rows", [1, 15, 16, 17, 50])
def test_native_compensation_equals_its_twin(rows: int, columns: int) -> None:
    matrix, known = weights(rows, columns), moments(columns)
    for scheme in (Scheme("int4", 16), Scheme("int2", 0, affine=True)):
        grids = Grids.fitted(matrix, scheme, FIT)
        for drift in (None, known.drift):
            native = compensate(matrix, grids, known, drift)
            assert np.array_equal(native, compensate_reference(matrix, grids, known, drift))


@pytest.mark.parametrize("columns", [16, 48, 96, 240])
@pytest.mark.parametrize("rows", [1, 15, 16, 17, 50])
def test_native_descent_equals_its_twin(rows: int, columns: int) -> None:
    matrix, gram = weights(rows, columns), moments(columns).damped.astype(np.float32)
    for scheme in (Scheme("int4", 16), Scheme("int2", 0, affine=True)):
        grids = Grids.fitted(matrix, scheme, FIT)
        codes = nearest(matrix, scheme, FIT).codes
        values = grids.values(codes)
        residuals = (values - matrix) @ gram
        native = descend(matrix, grids, codes, gram)
        assert np.array_equal(native, descend_reference(values, residuals, grids, gram))
        assert not np.array_equal(native, codes)


def test_descent_stops_where_no_single_code_can_be_bettered() -> None:
    """Brute force: at the end, no other level of any one weight lowers its row's error."""
    matrix, known = weights(4, 16), moments(16)
    gram, scheme = known.damped.astype(np.float32), Scheme("int3", 8)
    grids = Grids.fitted(matrix, scheme, FIT)
    codes = nearest(matrix, scheme, FIT).codes
    for _ in range(30):
        codes = descend(matrix, grids, codes, gram)
    best = row_errors(matrix, grids, codes, gram)
    for column in range(16):
        for code in range(8):
            other = codes.copy()
            other[:, column] = code
            assert (row_errors(matrix, grids, other, gram) >= best * (1 - 1e-4)).all()


@pytest.mark.parametrize("scheme", [Scheme("int4", 32), Scheme("int3", 64, affine=True), Scheme("int2", 0)], ids=str)
def test_refitted_scales_are_those_of_least_error(scheme: Scheme) -> None:
    """Each row's scales against a dense least-squares solution through the inputs' square root."""
    exact = Scheme(scheme.format, scheme.group, scheme.affine, "fp32")
    matrix, known = weights(5, 192), moments(192)
    gram = known.damped.astype(np.float32)
    grids = Grids.fitted(matrix, exact, FIT)
    codes = nearest(matrix, exact, FIT).codes
    found = refitted(matrix, grids, codes, gram)
    root = np.linalg.cholesky(known.damped)
    levels = grids.levels(codes).astype(np.float64)
    for r in range(len(matrix)):
        design = np.stack([(levels[r] * (grids.group_of == g)) @ root for g in range(grids.scale.shape[1])], axis=1)
        expected = np.linalg.lstsq(design, matrix[r] @ root, rcond=None)[0]
        assert np.allclose(found.scale[r], expected, rtol=1e-3, atol=1e-5)
    assert (row_errors(matrix, found, codes, gram) <= row_errors(matrix, grids, codes, gram) * (1 + 1e-5)).all()


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_refinement_never_raises_the_error(scheme: Scheme) -> None:
    matrix, known = weights(20, 192), moments(192)
    gram = known.damped.astype(np.float32)
    grids = Grids.fitted(matrix, scheme, FIT)
    codes = compensate(matrix, grids, known)
    before = row_errors(matrix, grids, codes, gram)
    tensor = refined(matrix, grids, codes, known)
    change = tensor.dequantize() - matrix
    after = np.einsum("ij,ij->i", change @ gram, change)
    if scheme.group == -1:
        assert after.sum() <= before.sum() * (1 + 1e-5)
    else:
        assert (after <= before * (1 + 1e-5)).all()
        assert after.sum() < before.sum()


@pytest.mark.parametrize("method", CALIBRATED)
def test_the_error_that_counts_is_lower_than_nearest(method: str) -> None:
    matrix, known = weights(40, 192), moments(192, drift=True)
    for scheme in SCHEMES:
        change = {name: ROUNDING[name](matrix, scheme, FIT, known).dequantize() - matrix for name in ("nearest", method)}
        errors = {name: np.einsum("ij,ij->", c @ known.gram, c) for name, c in change.items()}
        assert errors[method] < errors["nearest"], scheme


@pytest.mark.parametrize("columns", [1, 5, 96, 97, 300])
def test_a_triangle_times_its_inverse_is_one(columns: int) -> None:
    triangle = np.triu(np.random.default_rng(1).standard_normal((columns, columns))) + 10 * np.eye(columns)
    assert np.allclose(triangle @ inverse_upper(triangle), np.eye(columns), atol=1e-10)


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    matrix = weights(4, 64)
    nothing = Moments(np.zeros((64, 64)), np.zeros((64, 64)))
    for method in CALIBRATED:
        assert np.isfinite(ROUNDING[method](matrix, Scheme("int4", 32), FIT, nothing).dequantize()).all()
