"""GPTQ, GPTAQ and refinement: equal to slow loops code for code, and to nearest rounding where inputs say nothing."""

from __future__ import annotations

import importlib.util

import numpy as np
import numpy.typing as npt
import pytest

from bitwright.core import QTensor, Scheme
from bitwright.fitting import FITTING
from bitwright.formats import FORMATS
from bitwright.formats.hadamard import rotate, rotate_reference
from bitwright.formats.scales import group_scales, store_multiples
from bitwright.formats.table import Table
from bitwright.formats.uniform import Uniform
from bitwright.rounding import ROUNDING
from bitwright.rounding.gptq import compensate, compensate_reference
from bitwright.rounding.grids import Grids
from bitwright.rounding.moments import Moments, cholesky, inverse_upper
from bitwright.rounding.nearest import nearest
from bitwright.rounding.refine import descend, descend_reference, refined, row_errors
from bitwright.rounding.refit import REFITTED_SCALES, equations, refitted, relearned
from bitwright.rounding.scale_search import group_errors, searched
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
        "int4-g32-srow5",
        "nf4-g32",
        "any3-g48",
        "local2-g32",
        "kmeans4-g64",
        "mxfp4",
        "nvfp4",
        "fp8e4m3-channel",
    )
]
TABLES = tuple(map(Scheme.parse, ("kmeans4-g16", "any3-g8", "local2-g16", "nf4-channel", "pwl6-g16", "fp8e4m3-channel")))
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


def nearest_level(x: np.float32, tensor: QTensor, place: tuple[int, int]) -> tuple[int, np.float32]:
    """(code, level less the zero point) for the weight at `place` over its scale: ties to even."""
    (rows, columns), grid, params = tensor.shape, FORMATS[tensor.scheme.format], tensor.params
    index = place[0] * columns + place[1]
    assert params is not None
    if isinstance(grid, Uniform):
        zero_point = (
            np.float32(0) if params.zero_point is None else params.zero_point[index // tensor.scheme.group_size(tensor.shape)]
        )
        level = min(max(np.rint(x) + zero_point, grid.lowest), grid.highest)
        return int(level) - grid.lowest, level - zero_point
    assert isinstance(grid, Table)
    tables = grid.table if params.table is None else params.table
    table = tables[index * len(tables) // (rows * columns)]
    _, _, code = min((abs(float(x) - float(level)), code % 2, code) for code, level in enumerate(table) if level == level)
    return code, table[code]


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
    size = tensor.scheme.group_size(matrix.shape)
    codes = np.zeros(matrix.shape, np.uint8)
    for r in range(len(matrix)):
        row = [matrix[r, j] for j in order]
        for j, column in enumerate(order):
            group = (r * n + column) // size
            scale = tensor.params.scale[group]
            codes[r, column], level = nearest_level(row[j] / scale, tensor, (r, column))
            w = row[j]
            error = (w - level * scale) / factor[j, j]
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
    for scheme in (Scheme("int4", 16), Scheme("int2", 0, affine=True), *TABLES):
        grids = Grids.fitted(matrix, scheme, FIT)
        for drift in (None, known.drift):
            native = compensate(matrix, grids, known, drift)
            assert np.array_equal(native, compensate_reference(matrix, grids, known, drift))


@pytest.mark.parametrize("columns", [16, 48, 96, 240])
@pytest.mark.parametrize("rows", [1, 15, 16, 17, 50])
def test_native_descent_equals_its_twin(rows: int, columns: int) -> None:
    matrix, gram = weights(rows, columns), moments(columns).damped.astype(np.float32)
    for scheme in (Scheme("int4", 16), Scheme("int2", 0, affine=True), *TABLES):
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
    if scheme.group == -1 or grids.params.table is not None and len(grids.params.table) == 1:
        assert after.sum() <= before.sum() * (1 + 1e-5)  # rows share a grid, or its levels
    else:
        assert (after <= before * (1 + 1e-5)).all()
        assert after.sum() < before.sum()


@pytest.mark.parametrize("method", CALIBRATED)
def test_the_error_that_counts_is_lower_than_nearest(method: str) -> None:
    matrix, known = weights(40, 192), moments(192, drift=True)
    for scheme in SCHEMES:
        if ROUNDING[method].even_steps and not isinstance(FORMATS[scheme.format], Uniform):
            continue
        change = {name: ROUNDING[name](matrix, scheme, FIT, known).dequantize() - matrix for name in ("nearest", method)}
        errors = {name: np.einsum("ij,ij->", c @ known.gram, c) for name, c in change.items()}
        assert errors[method] < errors["nearest"], scheme


@pytest.mark.parametrize("scheme", ["int4-g32", "int3-g48-affine", "kmeans3-g48"])
def test_errors_of_groups_are_those_that_gptq_makes(scheme: str) -> None:
    """Against the recursion, one weight at a time: the sum over each group of the squares of what is pushed on."""
    matrix, known = weights(3, 96), moments(96)
    grids = Grids.fitted(matrix, Scheme.parse(scheme), FIT)
    codes = compensate(matrix, grids, known)
    expected = np.zeros(grids.scale.shape)
    rounded, order, factor = grids.values(codes).astype(np.float64), known.order, known.factor.astype(np.float64)
    for r in range(3):
        row = matrix[r, order].astype(np.float64)
        for j, column in enumerate(order):
            error = (row[j] - rounded[r, column]) / factor[j, j]
            row[j + 1 :] -= error * factor[j, j + 1 :]
            expected[r, grids.group_of[column]] += error**2
    np.testing.assert_allclose(group_errors(matrix, grids, codes, known), expected, rtol=1e-3)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_searched_scales_never_raise_the_error(scheme: Scheme) -> None:
    matrix, known = weights(20, 192), moments(192)
    gram = known.damped.astype(np.float32)
    grids = Grids.fitted(matrix, scheme, FIT)
    codes = compensate(matrix, grids, known)
    before = row_errors(matrix, grids, codes, gram)
    found, found_codes = searched(matrix, grids, known)
    after = row_errors(matrix, found, found_codes, gram)
    if scheme.scale not in REFITTED_SCALES:
        assert found is grids and np.array_equal(found_codes, codes)
    elif scheme.group == -1:
        assert after.sum() <= before.sum() * (1 + 1e-4)
    else:
        assert (after <= before * (1 + 1e-3)).all()
        assert after.sum() < 0.99 * before.sum()


@pytest.mark.parametrize("columns", [1, 5, 96, 97, 300])
def test_a_triangle_times_its_inverse_is_one(columns: int) -> None:
    triangle = np.triu(np.random.default_rng(1).standard_normal((columns, columns))) + 10 * np.eye(columns)
    assert np.allclose(triangle @ inverse_upper(triangle), np.eye(columns), atol=1e-10)


def test_both_libraries_find_the_same_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    damped = moments(192).damped
    by_torch = cholesky(damped)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    np.testing.assert_allclose(cholesky(damped), by_torch, rtol=1e-9, atol=1e-9 * by_torch.max())
    np.testing.assert_allclose(by_torch @ by_torch.T, damped, rtol=1e-9, atol=1e-9 * damped.max())


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    matrix = weights(4, 64)
    nothing = Moments(np.zeros((64, 64)), np.zeros((64, 64)))
    for method in CALIBRATED:
        assert np.isfinite(ROUNDING[method](matrix, Scheme("int4", 32), FIT, nothing).dequantize()).all()


@pytest.mark.parametrize("spelling", ["int4-g32-srow5", "nvfp4"])
def test_scales_stay_multiples_of_the_shared_one(spelling: str) -> None:
    """After refinement, too, since nothing else can be stored; where it cannot choose them it gives back the fitted ones."""
    scheme, matrix, known = Scheme.parse(spelling), weights(20, 192), moments(192)
    fitted, tensor = FIT(matrix, scheme), ROUNDING["refine"](matrix, scheme, FIT, known)
    assert tensor.params is not None and tensor.params.row_scale is not None and fitted.row_scale is not None
    by_row, shared = tensor.params.scale.reshape(20, -1), tensor.params.row_scale
    assert np.array_equal(by_row, fitted.scale.reshape(20, -1)) == (scheme.scale == "e4m3")
    stored = store_multiples(by_row, shared, scheme.scale)
    assert np.array_equal(group_scales(shared, stored, scheme.scale, by_row.shape[1]), tensor.params.scale)


def test_refitted_multiples_are_the_best_that_one_change_reaches() -> None:
    """Against brute force: no other multiple of one group, at the row's scale, lowers the row's error."""
    scheme, matrix, known = Scheme.parse("int4-g32-srow5"), weights(9, 128), moments(128)
    gram = known.damped.astype(np.float32)
    grids = Grids.fitted(matrix, scheme, FIT)
    codes = compensate(matrix, grids, known)
    found = refitted(matrix, grids, codes, gram)
    before, after = row_errors(matrix, grids, codes, gram), row_errors(matrix, found, codes, gram)
    assert (after <= before * (1 + 1e-5)).all() and after.sum() < 0.99 * before.sum()
    assert found.params.row_scale is not None
    for group in range(4):
        for multiple in (*range(-15, 0), *range(1, 16)):
            scale = found.scale.copy()
            scale[:, group] = multiple * found.params.row_scale
            assert (row_errors(matrix, found.with_scale(scale), codes, gram) >= after * (1 - 1e-4)).all()


@pytest.mark.parametrize("spelling", ["kmeans4-g32", "any3-g64", "kmeans2-g32"])
def test_relearned_levels_are_those_of_least_error(spelling: str) -> None:
    """Against a dense least-squares solution through the inputs' square root, up to how levels are stored."""
    scheme, matrix, known = Scheme.parse(spelling), weights(6, 192), moments(192)
    gram, root = known.damped.astype(np.float32), np.linalg.cholesky(known.damped)
    grids = Grids.fitted(matrix, scheme, FIT)
    codes = compensate(matrix, grids, known)
    found = relearned(matrix, grids, codes, gram)
    assert grids.params.table is not None and found.params.table is not None
    tables, count = grids.params.table.shape
    scale = grids.scale[:, grids.group_of].astype(np.float64)
    for t, rows in enumerate(np.split(np.arange(6), tables)):
        design = np.stack([(scale[rows] * (codes[rows] == k)) @ root for k in range(count)], axis=-1).reshape(-1, count)
        used = (grids.params.table[t] != 0) & np.array([(codes[rows] == k).any() for k in range(count)])
        expected = np.linalg.lstsq(design[:, used], (matrix[rows] @ root).ravel(), rcond=None)[0]
        if (np.diff(expected) <= 0).any():
            continue  # what is no ascending table is not taken
        assert np.allclose(found.params.table[t, used], np.clip(expected, -127, 127), rtol=1e-3, atol=0.51)
        assert (found.params.table[t] == 0).sum() == 1
    before, after = row_errors(matrix, grids, codes, gram), row_errors(matrix, found, codes, gram)
    assert after.sum() < before.sum()


def test_the_equations_of_a_refit_are_the_error_itself() -> None:
    matrix, known = weights(3, 96), moments(96)
    gram = known.damped.astype(np.float32)
    grids = Grids.fitted(matrix, Scheme("int4", 32), FIT)
    codes = nearest(matrix, grids.scheme, FIT).codes
    normal, wanted = equations(matrix, grids, codes, gram)
    for r, s in enumerate(grids.scale.astype(np.float64)):
        constant = matrix[r].astype(np.float64) @ known.damped @ matrix[r]
        expected = row_errors(matrix, grids, codes, gram)[r]
        assert np.isclose(s @ normal[r] @ s - 2 * wanted[r] @ s + constant, expected, rtol=1e-3, atol=1e-5 * constant)


@pytest.mark.parametrize("method", CALIBRATED)
@pytest.mark.parametrize("block", [4, 64])
def test_rotated_moments_are_those_of_rotated_inputs(method: str, block: int) -> None:
    random = np.random.default_rng(8)
    mixing = random.standard_normal((192, 192)) * np.exp(random.standard_normal(192))
    x, drift = random.standard_normal((600, 192)) @ mixing, random.standard_normal((600, 192))
    turned = rotate_reference(x, block)
    known = Moments(x.T @ x / 600, drift.T @ x / 600).rotated(block)
    expected = Moments(turned.T @ turned / 600, rotate_reference(drift, block).T @ turned / 600)
    assert known.cross is not None and expected.cross is not None
    assert np.allclose(known.gram, expected.gram, rtol=1e-9, atol=1e-9 * known.gram.max())
    assert np.allclose(known.cross, expected.cross, rtol=1e-9, atol=1e-9 * known.gram.max())
    matrix, scheme = rotate(weights(12, 192), block), Scheme("int4", 32)
    found = ROUNDING[method](matrix, scheme, FIT, known)
    assert np.array_equal(found.codes, ROUNDING[method](matrix, scheme, FIT, expected).codes)
    assert not np.array_equal(found.codes, ROUNDING[method](matrix, scheme, FIT, Moments(x.T @ x / 600, drift.T @ x / 600)).codes)


def test_rotation_leaves_the_identity_and_is_done_once() -> None:
    assert np.array_equal(Moments.identity(192).rotated(64).gram, np.eye(192))
    assert np.allclose(Moments.identity(96).rotated(32).gram, np.eye(96), atol=1e-14)
    known = moments(192)
    assert known.rotated(0) is known and known.rotated(64) is known.rotated(64)
    assert known.rotated(64).damping == known.damping and known.rotated(64).alpha == known.alpha
    back = known.rotated(64).rotated(64).gram
    assert np.allclose(back, known.gram, atol=1e-9 * known.gram.max())
