"""The searches of AWQ against loops that read like the formulas, and the plain functions for layers that are no decoder's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from bitwright.models.architecture import Architecture, Rope
from bitwright.observers.inputs import Inputs
from bitwright.transforms.awq import POWERS, best_scale, scales
from bitwright.transforms.bias_correction import shift
from bitwright.transforms.clipping import RATIOS, best_limits, clipped
from bitwright.transforms.equalization import Layer, equalize_chain
from bitwright.transforms.rotation import orthogonal
from bitwright.transforms.smoothquant import smoothing

Floats = npt.NDArray[np.float32]

GROUP, COLUMNS = 8, 32
ARCHITECTURE = Architecture("llama", 32, 32, 1, 8, 2, 4, 10, 16, (Rope(1e4, 4),), (0,), (0,))


def rounded(weights: Floats, group: int = GROUP) -> Floats:
    """Three bits, one scale a group."""
    groups = weights.reshape(-1, group)
    scale = np.maximum(np.abs(groups).max(axis=1, keepdims=True), 1e-20) / 3
    return (np.rint(groups / scale) * scale).reshape(weights.shape).astype(np.float32)


def inputs(roles: tuple[str, ...], columns: int = COLUMNS, seed: int = 2) -> Inputs:
    random = np.random.default_rng(seed)
    x = random.standard_normal((300, columns)) * np.exp(1.5 * random.standard_normal(columns))
    return Inputs(0, roles, x.T @ x / 300, x.mean(axis=0), np.abs(x).mean(axis=0), np.abs(x).max(axis=0))


def test_the_scale_is_that_of_least_output_error() -> None:
    seen, random = inputs(("q", "k")), np.random.default_rng(0)
    weights = {role: random.standard_normal((6, COLUMNS)).astype(np.float32) for role in ("q", "k")}
    errors = []
    for power in POWERS:
        s = seen.size**power
        s = s / np.sqrt(s.max() * s.min())
        errors.append(0.0)
        for matrix in weights.values():
            difference = rounded((matrix * s).astype(np.float32)) / s - matrix
            errors[-1] += sum(float(row @ seen.gram @ row) for row in difference)
    found = best_scale(seen, weights, lambda role, layer, w: rounded(w), ARCHITECTURE)
    assert 0 < np.argmin(errors) < len(errors) - 1 and found is not None
    np.testing.assert_allclose(found, scales(seen.size, POWERS[int(np.argmin(errors))]))
    assert np.isclose(found.max() * found.min(), 1)


def test_heads_that_share_a_value_head_share_its_scale() -> None:
    seen, random = inputs(("o",)), np.random.default_rng(1)
    found = best_scale(
        seen, {"o": random.standard_normal((6, COLUMNS)).astype(np.float32)}, lambda role, layer, w: rounded(w), ARCHITECTURE
    )
    assert found is not None and found.shape == (8,)  # 2 KV heads of 4 channels
    size = [
        np.mean([seen.size[(kv * 4 + shared) * 4 + channel] for shared in range(4)]) for kv in range(2) for channel in range(4)
    ]
    assert any(np.allclose(found, scales(np.array(size), power)) for power in POWERS[1:])


def test_what_loses_nothing_is_not_scaled() -> None:
    weights = {"q": np.ones((2, COLUMNS), np.float32)}
    assert best_scale(inputs(("q",)), weights, lambda role, layer, w: w, ARCHITECTURE) is None


@pytest.mark.parametrize("group", [GROUP, COLUMNS])
def test_limits_are_those_of_least_error_in_each_group(group: int) -> None:
    seen, random = inputs(("down",), seed=5), np.random.default_rng(3)
    weights = (random.standard_normal((4, COLUMNS)) ** 3).astype(np.float32)
    limits = best_limits(weights, seen.gram, group, lambda w: rounded(w, group))
    assert limits.shape == (4, COLUMNS // group)
    cut = 0
    for row in range(4):
        for g in range(COLUMNS // group):
            part = slice(g * group, (g + 1) * group)
            w, largest, errors = weights[row, part], np.abs(weights[row, part]).max(), []
            for ratio in RATIOS:
                limit = largest * np.float32(ratio)
                e = rounded(np.clip(w, -limit, limit)[None], group)[0] - w
                errors.append(float(e @ seen.gram[part, part] @ e))
            best = int(np.argmin(errors))
            assert limits[row, g] == largest * np.float32(RATIOS[best])
            cut += best > 0
    assert cut > 0
    bounds = np.repeat(limits, group, axis=1)
    np.testing.assert_array_equal(clipped(limits)(weights), np.minimum(np.maximum(weights, -bounds), bounds))


def test_smoothing_makes_both_sides_span_the_same() -> None:
    x, w = np.array([100.0, 1.0, 4.0]), np.array([1.0, 1.0, 9.0])
    s = smoothing(x, w)
    np.testing.assert_allclose(x / s, w * s)
    np.testing.assert_array_equal(smoothing(np.array([0.0, 1.0]), np.array([1.0, 0.0])), [1, 1])


@pytest.mark.parametrize("n", [1, 7, 24, 64, 576])
def test_rotations_are_orthogonal_and_the_same_for_a_seed(n: int) -> None:
    turn = orthogonal(n, np.random.default_rng(4))
    np.testing.assert_allclose(turn @ turn.T, np.eye(n), atol=1e-12)
    np.testing.assert_array_equal(turn, orthogonal(n, np.random.default_rng(4)))
    assert n < 24 or np.abs(turn).max() < 0.75


def net(layers: list[Layer], x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Fully connected, ReLU between."""
    for index, layer in enumerate(layers):
        x = (np.maximum(x, 0) if index else x) @ layer.weights.T + (0 if layer.bias is None else layer.bias)
    return x


def test_equalized_chains_compute_the_same_with_equal_ranges() -> None:
    random = np.random.default_rng(6)
    shapes = [(16, 8), (12, 16), (5, 12)]
    layers = [Layer((random.standard_normal(s) * np.exp(2 * random.standard_normal((s[0], 1)))).astype(np.float32),
                    random.standard_normal(s[0]).astype(np.float32) if s[0] != 12 else None) for s in shapes]  # fmt: skip
    found, x = equalize_chain(layers), random.standard_normal((20, 8))
    np.testing.assert_allclose(net(found, x), net(layers, x), rtol=1e-4, atol=1e-4)
    for first, second in zip(found, found[1:], strict=False):
        np.testing.assert_allclose(np.abs(first.weights).max(axis=1), np.abs(second.weights).max(axis=0), rtol=1e-3)


def test_depthwise_convolutions_are_equalized_by_channel() -> None:
    random = np.random.default_rng(8)
    layers = [Layer(random.standard_normal(s).astype(np.float32)) for s in ((6, 3, 1, 1), (6, 1, 3, 3), (4, 6, 1, 1))]
    layers[0].weights[2] *= 50
    found = equalize_chain(layers)
    for first, second, axes in ((found[0], found[1], (1, 2, 3)), (found[1], found[2], (0, 2, 3))):
        np.testing.assert_allclose(np.abs(first.weights).max(axis=(1, 2, 3)), np.abs(second.weights).max(axis=axes), rtol=1e-3)
    product = [np.prod([np.abs(layer.weights).max(axis=axes)[2] for layer, axes in
                        zip(net_, ((1, 2, 3), (1, 2, 3), (0, 2, 3)), strict=True)]) for net_ in (layers, found)]  # fmt: skip
    np.testing.assert_allclose(product[0], product[1], rtol=1e-4)


def test_the_shift_is_the_mean_error_of_the_output() -> None:
    random = np.random.default_rng(9)
    weights, x = random.standard_normal((5, COLUMNS)).astype(np.float32), random.standard_normal((50, COLUMNS)) + 1
    q = rounded(weights)
    np.testing.assert_allclose(shift(weights, q, x.mean(axis=0)), (x @ q.T - x @ weights.T).mean(axis=0), atol=1e-6)
    kernel = random.standard_normal((5, COLUMNS, 3, 3)).astype(np.float32)
    constant = np.full((COLUMNS, 3, 3), 2.0)
    expected = ((kernel * 0.5) * constant).sum(axis=(1, 2, 3)) - (kernel * constant).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(shift(kernel, kernel * np.float32(0.5), np.full(COLUMNS, 2.0)), expected, rtol=1e-5)
