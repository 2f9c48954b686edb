"""Clusters: each weight takes its nearest centroid, centroids are means, zeros stay, and 8-bit rounding keeps all that."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from bitwright.core import Scheme
from bitwright.errors import NonFiniteError, RecipeError
from bitwright.fitting import FITTING
from bitwright.fitting.cells import Cells
from bitwright.fitting.kmeans import kmeans, kmeans_reference
from bitwright.rounding import ROUNDING
from bitwright.sparsity.clustering import STARTS, cluster, nearest, nearest_reference
from bitwright.sparsity.pruning import Pattern, mask, strip


def weights() -> npt.NDArray[np.float32]:
    return np.random.default_rng(8).standard_t(4, (16, 96)).astype(np.float32)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("keep_zeros", [False, True])
def test_clusters_are_those_of_plain_k_means(start: str, by_row: bool, keep_zeros: bool) -> None:
    x, count = weights(), 6
    found = cluster(x, count, start, by_row, keep_zeros)
    assert found.centroids.shape == (16 if by_row else 1, count) and found.codes.shape == x.shape
    for values, centroids in zip(x if by_row else [x.reshape(-1)], found.centroids, strict=True):
        doubles = values.astype(np.float64)
        begin = STARTS[start](np.sort(doubles), count)
        if keep_zeros:
            begin[np.abs(begin).argmin()] = 0
            assert 0 in centroids
        expected = kmeans_reference(doubles, np.ones_like(doubles), begin)
        np.testing.assert_allclose(centroids, expected, atol=1e-5)
    taken = found.dequantize()
    tables = found.centroids if by_row else np.repeat(found.centroids, 16, axis=0)
    distances = np.abs(x[:, :, None].astype(np.float64) - tables[:, None, :])
    np.testing.assert_array_equal(np.abs(x.astype(np.float64) - taken), distances.min(axis=2))


def test_the_nearest_centroid_is_its_slow_twin_s() -> None:
    centroids = np.array([-2, -1, 0, 0, 1.5, 4], np.float32)
    values = np.concatenate([weights().reshape(-1), np.array([-1.5, -0.5, 0.75, 0, 9, -9], np.float32)])
    chosen, expected = nearest(values, centroids), nearest_reference(values, centroids)
    np.testing.assert_array_equal(centroids[chosen], centroids[expected])


def test_a_centroid_at_zero_moves_unless_it_is_fixed() -> None:
    x, start = np.array([[1, 2, 3, 9]], np.float32), np.array([[0.0, 8.0]])
    cells = Cells.of(x, np.ones_like(x))
    np.testing.assert_array_equal(kmeans(cells, start), [[0, 9]])
    np.testing.assert_array_equal(kmeans(cells, start, np.zeros((1, 2), bool)), [[2, 9]])


def test_starts_by_hand() -> None:
    values = np.array([0, 0, 0, 0, 0, 1, 2, 10], np.float64)
    np.testing.assert_array_equal(STARTS["linear"](values, 3), [0, 5, 10])
    np.testing.assert_array_equal(STARTS["density"](values, 2), np.quantile(values, [0.25, 0.75]))
    drawn = STARTS["kmeans++"](values, 4)
    np.testing.assert_array_equal(drawn, [0, 1, 2, 10])  # what was drawn is at distance 0, and not drawn again


def test_fewer_values_than_clusters() -> None:
    x = np.array([[0, 0, 1, 1]], np.float32)
    for start in STARTS:
        np.testing.assert_array_equal(cluster(x, 4, start).dequantize(), x)
    zeros = np.zeros((2, 4), np.float32)
    np.testing.assert_array_equal(cluster(zeros, 3, by_row=True).dequantize(), zeros)


def test_what_cannot_be_clustered_is_refused() -> None:
    with pytest.raises(RecipeError, match="unknown start 'best'; choose from linear, density"):
        cluster(weights(), 4, "best")
    for count in (1, 257):
        with pytest.raises(RecipeError, match="from 2 to 256"):
            cluster(weights(), count)
    with pytest.raises(NonFiniteError):
        cluster(np.full((2, 2), np.inf, np.float32), 2)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("by_row", [False, True])
def test_pruned_then_clustered_then_quantized(start: str, by_row: bool) -> None:
    """Each step keeps what the ones before it made: the zeros, and how many values there are."""
    x = weights()
    kept = mask(x, Pattern.parse("2:4"))
    clustered = cluster(strip(x, kept), 16, start, by_row).dequantize()
    quantized = ROUNDING["nearest"](clustered, Scheme.parse("int8-channel"), FITTING["mse"]).dequantize()
    for values in (clustered, quantized):
        assert (values[~kept] == 0).all()
        assert max(len(np.unique(row)) for row in values) <= 16
    assert len(np.unique(clustered)) <= (16 * 16 if by_row else 16)


def test_a_learned_format_is_a_clustering() -> None:
    x = strip(weights(), mask(weights(), Pattern.parse("0.5")))
    stored = ROUNDING["nearest"](x, Scheme.parse("kmeans4-tensor"), FITTING["mse"])
    assert stored.params is not None and stored.params.table is not None
    assert stored.params.table.shape == (1, 16) and 0 in stored.params.table and len(np.unique(stored.dequantize())) <= 16
