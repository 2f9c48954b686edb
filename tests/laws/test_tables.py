"""Tables of levels: native code equals its slow twin, published numbers come out, and learned tables are what they claim."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright import _native
from bitwright.core import QParams, Scheme
from bitwright.fitting import FITTING, learning
from bitwright.fitting.cells import Cells
from bitwright.fitting.compander import compander, curve, first_guess
from bitwright.fitting.kmeans import kmeans, kmeans_reference
from bitwright.fitting.measure import Measure
from bitwright.fitting.piecewise import BREAKPOINTS, levels_of, piecewise
from bitwright.formats import FORMATS
from bitwright.formats.table import Ordering, Table, decode_with
from bitwright.rounding import ROUNDING
from laws.strategies import TABLES, matrices, schemes_of, seeds

Floats = npt.NDArray[np.float32]
LEARNED = [name for name in TABLES if FORMATS[name].learned]


def table_of(name: str) -> Table:
    format = FORMATS[name]
    assert isinstance(format, Table)
    return format


def half_ties(name: str, columns: int, seed: int) -> Floats:
    """Random numbers, levels, and midpoints between levels, all of which a table must put in the right place."""
    random, levels = np.random.default_rng(seed), table_of(name).ordering.levels[0]
    middle = (levels[1:] + levels[:-1]) / 2
    pool = np.concatenate([levels, middle, middle, 2 * levels, random.standard_normal(50).astype(np.float32) * levels[-1]])
    return random.choice(pool, (6, columns)).astype(np.float32)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("columns", [1, 7, 63, 64, 65, 192])
def test_native_encode_equals_the_format(name: str, columns: int) -> None:
    """Ties included, at every tail; scales are powers of two here, so that ties stay ties."""
    order, x = table_of(name).ordering, half_ties(name, columns, columns)
    scale = np.float32(2.0) ** np.random.default_rng(1).integers(-9, 9, 6).astype(np.float32)
    native = _native.encode_tables(x * scale[:, None], scale, order.thresholds, order.levels, order.codes)
    assert np.array_equal(native, table_of(name).encode(x))


@pytest.mark.parametrize("name", TABLES)
def test_ties_go_to_the_even_code(name: str) -> None:
    order = table_of(name).ordering
    middle = (order.levels[0, 1:].astype(np.float64) + order.levels[0, :-1]) / 2
    exact = middle == middle.astype(np.float32)
    assert exact.any()
    chosen = table_of(name).encode(middle.astype(np.float32)[exact])
    pair = np.stack([order.codes[0, :-1], order.codes[0, 1:]])[:, exact]
    mixed = pair[0] % 2 != pair[1] % 2
    assert np.all(chosen[mixed] % 2 == 0)


@given(seed=seeds, name=st.sampled_from(TABLES), spread=st.floats(-4, 3))
def test_native_error_equals_its_twin(seed: int, name: str, spread: float) -> None:
    """With and without importances, and with a table for every second group."""
    random, format = np.random.default_rng(seed), table_of(name)
    x = (random.standard_normal((8, 48)) * 10.0**spread).astype(np.float32)
    scale = (np.abs(x).max(axis=1) / np.float32(format.largest) * random.uniform(0.3, 1.2, 8)).astype(np.float32)
    tables = np.sort(random.standard_normal((4, 16)).astype(np.float32), axis=1)
    importance = random.uniform(0, 3, 96).astype(np.float32)
    for order, decode in ((format.ordering, None), (Ordering.of(tables), tables)):
        codes = _native.encode_tables(x, scale, order.thresholds, order.levels, order.codes)
        levels = format.decode(codes) if decode is None else decode_with(decode, codes)
        squares = (levels.astype(np.float64) * scale[:, None] - x) ** 2
        for weights in (None, importance):
            found = _native.table_error(x, scale, order.thresholds, order.levels, order.codes, weights)
            expected = (squares * (1 if weights is None else np.tile(weights.reshape(2, 48), (4, 1)))).sum(axis=1)
            assert np.allclose(found, expected, rtol=1e-4, atol=1e-5 * (x.astype(np.float64) ** 2).max())


@given(seed=seeds)
def test_a_table_for_each_row_serves_that_row(seed: int) -> None:
    random = np.random.default_rng(seed)
    tables = np.sort(random.standard_normal((3, 8)).astype(np.float32), axis=1)
    x = random.standard_normal((6, 16)).astype(np.float32)  # two groups a row
    order = Ordering.of(tables)
    codes = _native.encode_tables(x, np.ones(6, np.float32), order.thresholds, order.levels, order.codes)
    for group in range(6):
        distance = np.abs(tables[group // 2][None, :].astype(np.float64) - x[group][:, None])
        assert np.array_equal(distance[np.arange(16), codes[group]], distance.min(axis=1))


# Published numbers -----------------------------------------------------------------------------------------------------


def test_fp4_is_what_the_specification_lists() -> None:
    positive = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert table_of("fp4e2m1").levels == (*positive, *(-x for x in positive))


@pytest.mark.parametrize(
    ("name", "smallest", "smallest_normal", "largest", "nans"),
    [
        ("fp8e4m3", 2.0**-9, 2.0**-6, 448, 2),
        ("fp8e5m2", 2.0**-16, 2.0**-14, 57344, 8),  # six NaN and two infinities
        ("fp6e2m3", 0.125, 1.0, 7.5, 0),
        ("fp6e3m2", 0.0625, 0.25, 28, 0),
        ("fp4e2m1", 0.5, 1.0, 6, 0),
    ],
)
def test_minifloats_have_the_limits_of_the_specification(
    name: str, smallest: float, smallest_normal: float, largest: float, nans: int
) -> None:
    """OCP MX v1.0, section 5.3; FP8, arXiv:2209.05433, table 1."""
    levels = np.array(table_of(name).levels)
    finite = levels[np.isfinite(levels)]
    assert (finite[finite > 0].min(), finite.max(), -finite.min()) == (smallest, largest, largest)
    assert smallest_normal in finite and np.isnan(levels).sum() == nans


@pytest.mark.parametrize("bits", [3, 4])
def test_the_shared_curve_is_what_training_gives(bits: int) -> None:
    """On normal numbers, each 64 over their largest; and better than quantiles there."""
    x = np.random.default_rng(0).standard_normal((4096, 64)).astype(np.float32)
    x = (x / np.abs(x).max(axis=1, keepdims=True)).reshape(1, -1)
    cells = Cells.of(x, np.ones_like(x))
    levels = compander(cells, np.zeros((1, 1 << bits)))
    found = np.rint(levels / np.abs(levels).max() * 127)
    np.testing.assert_allclose(found, table_of(f"sneural{bits}").table, atol=1)  # a level may lie between two whole numbers
    quantiles = table_of(f"nf{bits}").table.astype(np.float64)
    shared = table_of(f"sneural{bits}").table.astype(np.float64) / 127
    assert cells.error(shared).sum() < 0.99 * cells.error(quantiles).sum()


def test_nf4_is_what_qlora_publishes() -> None:
    """arXiv:2305.14314, appendix E."""
    published = [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334),
        *(-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ]
    assert np.abs(np.array(table_of("nf4").levels) - published).max() < 5e-7


def test_sums_of_two_powers_come_once() -> None:
    for name, count in (("apot4", 8), ("apot5", 16)):
        positive = table_of(name).levels[:count]
        assert len(set(positive)) == count and list(positive) == sorted(positive)


def test_nvfp4_scales_are_fp8_numbers_of_one_tensor_scale() -> None:
    scheme = Scheme.parse("nvfp4")
    for name, weights in matrices():
        params = FITTING["minmax"](weights, scheme)
        assert params.row_scale is not None and params.row_scale.shape == (1,), name
        fp8 = params.scale / params.row_scale[0]
        assert np.array_equal(FORMATS["fp8e4m3"].decode(FORMATS["fp8e4m3"].encode(fp8)) * params.row_scale[0], params.scale), name


# Fits ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", schemes_of(tuple(name for name in TABLES if name not in LEARNED), (-1, 0, 32)), ids=str)
def test_mse_loses_no_more_than_minmax(scheme: Scheme) -> None:
    for name, weights in matrices():
        groups = weights.reshape(-1, scheme.group_size(weights.shape))
        measure = Measure(scheme, (weights.shape[0], weights.shape[1]))
        errors = [measure.error(groups, FITTING[fitting](weights, scheme).scale).sum() for fitting in ("mse", "minmax")]
        assert errors[0] <= errors[1] * (1 + 1e-5), name


@pytest.mark.parametrize("name", LEARNED)
def test_learned_tables_ascend_and_hold_zero(name: str) -> None:
    scheme = Scheme(name, 32)
    for label, weights in matrices():
        params = FITTING["mse"](weights, scheme)
        assert params.table is not None and params.table.shape == (scheme.tables(weights.shape), 1 << FORMATS[name].bits), label
        assert np.all(np.diff(params.table, axis=1) >= 0) and np.all((params.table == 0).any(axis=1)), label
        stored = np.int8 if FORMATS[name].bits <= 4 else np.float16
        assert np.array_equal(params.table, params.table.astype(stored)) and np.abs(params.table).max() <= 127, label


@settings(max_examples=25)
@given(seed=seeds, bits=st.integers(2, 4))
def test_kmeans_equals_its_slow_twin(seed: int, bits: int) -> None:
    random = np.random.default_rng(seed)
    x, weights = random.standard_normal((3, 60)).astype(np.float32) / 3, random.uniform(0.1, 2, (3, 60)).astype(np.float32)
    start = np.repeat(table_of(f"nf{bits}").table.astype(np.float64), 3, axis=0)
    learned = kmeans(Cells.of(x, weights), start)
    for row in range(3):
        assert np.allclose(learned[row], kmeans_reference(x[row].astype(np.float64), weights[row], start[row]), atol=1e-9)


@given(seed=seeds)
def test_cells_sum_what_is_nearest_to_each_level(seed: int) -> None:
    random = np.random.default_rng(seed)
    x, weights = random.standard_normal((2, 40)).astype(np.float32), random.uniform(0, 2, (2, 40)).astype(np.float32)
    levels = np.sort(random.standard_normal((2, 5)), axis=1)
    cells = Cells.of(x, weights)
    distance = np.abs(x[:, :, None].astype(np.float64) - levels[:, None, :])
    member = distance.argmin(axis=2)[:, :, None] == np.arange(5)
    for power, moment in enumerate(cells.moments(levels)):
        assert np.allclose(moment, (member * (weights * x.astype(np.float64) ** power)[:, :, None]).sum(axis=1))
    assert np.allclose(cells.error(levels), (weights * distance.min(axis=2) ** 2).sum(axis=1))


def bell(tables: int = 2) -> Cells:
    x = np.random.default_rng(4).standard_normal((tables, 4000)).astype(np.float32)
    return Cells.of(x / np.abs(x).max(axis=1, keepdims=True), np.ones_like(x))


def test_the_breakpoint_is_the_best_of_all() -> None:
    start = np.repeat(np.array([levels_of(0.5, 4)]), 2, axis=0)
    chosen = bell().error(piecewise(bell(), start))
    every = [bell().error(np.repeat(np.array([levels_of(point, 4)]), 2, axis=0)) for point in BREAKPOINTS]
    assert np.array_equal(chosen, np.min(every, axis=0))
    assert np.all(chosen < 0.8 * bell().error(start))


def test_half_of_the_codes_lie_in_the_centre() -> None:
    for bits in (4, 6, 8):
        levels = np.array(levels_of(0.25, bits))
        assert len(levels) == 1 << bits and np.all(np.diff(levels) > 0) and levels[0] == -1 and levels[-1] == 1
        assert ((levels >= -0.25) & (levels <= 0.25)).sum() == (1 << (bits - 1)) + 1
        assert np.allclose(np.diff(levels[np.abs(levels) <= 0.25]), 0.25 / (1 << (bits - 2)))


def test_the_compander_learns_a_curve() -> None:
    """From even steps it comes near the best table there is, by k-means, with 18 numbers; twice the same."""
    start = np.repeat(table_of("neural4").table.astype(np.float64) / 127, 2, axis=0)
    learned = compander(bell(), start)
    assert np.array_equal(learned, compander(bell(), start))
    even, best = bell().error(start), bell().error(kmeans(bell(), np.repeat(table_of("nf4").table.astype(np.float64), 2, axis=0)))
    assert np.all(bell().error(learned) < 0.7 * even) and np.all(bell().error(learned) < 1.35 * best)
    assert np.all(np.diff(learned, axis=1) > 0)


def test_the_gradient_of_the_curve_is_its_derivative() -> None:
    u, step = np.arange(16) / 8 - 1, 1e-6
    theta = first_guess()[:, None, :] + np.random.default_rng(0).normal(0, 0.3, (3, 1, 6))
    _, slope = curve(theta, u)
    for part in range(3):
        for unit in range(6):
            up, down = theta.copy(), theta.copy()
            up[part, 0, unit] += step
            down[part, 0, unit] -= step
            measured = (curve(up, u)[0] - curve(down, u)[0]) / (2 * step)
            assert np.allclose(slope[part, :, :, unit], measured, atol=1e-8)


@pytest.mark.parametrize("name", ["kmeans4", "any4", "local4"])
def test_learned_levels_lose_less_than_given_ones(name: str) -> None:
    weights = np.random.default_rng(9).standard_t(4, (8, 256)).astype(np.float32)
    errors = [
        ((ROUNDING["nearest"](weights, Scheme(spelling, 64), FITTING["mse"]).dequantize() - weights) ** 2).sum()
        for spelling in (name, "nf4")
    ]
    assert errors[0] < errors[1]


def test_a_sample_of_many_values_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = np.random.default_rng(8).standard_t(5, (64, 512)).astype(np.float32)
    errors = []
    for enough in (1 << 18, 1 << 12):
        monkeypatch.setattr(learning, "ENOUGH", enough)
        errors.append(((ROUNDING["nearest"](weights, Scheme("kmeans4", 64), FITTING["mse"]).dequantize() - weights) ** 2).sum())
    assert errors[0] != errors[1] and errors[1] < 1.02 * errors[0]


def test_codes_of_a_learned_table_are_decoded_by_it() -> None:
    scheme, weights = Scheme("any2", 32), dict(matrices())["normal"]
    tensor = ROUNDING["nearest"](weights, scheme, FITTING["mse"])
    assert isinstance(tensor.params, QParams) and tensor.params.table is not None
    for row in range(len(weights)):
        expected = tensor.params.table[row][tensor.codes[row]] * np.repeat(tensor.params.scale.reshape(6, -1)[row], 32)
        assert np.array_equal(tensor.dequantize()[row], expected)
