"""A neural compander: the curve that bends even steps into levels is a small monotone network, trained for each tensor.

    h(u) = sum over j of softplus(a_j) tanh(softplus(b_j) (u - c_j)),      level k = h(u_k) - h(0),   u_k = k / 2^(b-1) - 1

Every term rises with u, so the levels ascend whatever a, b and c are; level 2^(b-1) is 0. Companding, quantizing evenly after
a curve: Bennett 1948; monotone networks by positive weights: Sill 1997. Trained by Adam (arXiv:1412.6980) on the squared
error of the weights at their nearest levels, from one start, so that the same weights give the same table. To run, the curve
is baked into that table.
"""

from __future__ import annotations

import numpy as np

from bitwright.fitting.cells import Cells, Doubles

UNITS, STEPS, RATE = 6, 600, 0.05


def compander(cells: Cells, start: Doubles) -> Doubles:
    """(tables, levels) -> levels of the trained curves. Only the shape of `start` counts."""
    tables, count = start.shape
    u = np.arange(count) * 2 / count - 1
    theta = np.broadcast_to(first_guess()[:, None, :], (3, tables, UNITS)).copy()
    energy = np.maximum(cells.sums[2, :, -1:], 1e-30)
    mean, square = np.zeros_like(theta), np.zeros_like(theta)
    best, least = curve(theta, u)[0], np.full(tables, np.inf)
    for step in range(1, STEPS + 1):
        levels, slope = curve(theta, u)
        weight, total, squares = cells.moments(levels)
        error = (squares - 2 * levels * total + levels**2 * weight).sum(axis=1)
        better = error < least
        best[better], least[better] = levels[better], error[better]
        gradient = (slope * (2 * (levels * weight - total) / energy)[None, :, :, None]).sum(axis=2)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.99 * square + 0.01 * gradient**2
        theta = theta - RATE * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.99**step)) + 1e-12)
    return best


def first_guess() -> Doubles:
    """(3, units): a, b and c of a curve that is nearly straight from -1 to 1."""
    centres = np.linspace(-1, 1, UNITS)
    return np.stack([np.full(UNITS, inverse_softplus(0.35)), np.full(UNITS, inverse_softplus(1.5)), centres])


def curve(theta: Doubles, u: Doubles) -> tuple[Doubles, Doubles]:
    """(tables, levels) levels and (3, tables, levels, units) their derivatives by a, b and c."""
    levels, slope = _terms(theta, u)
    at_zero, slope_at_zero = _terms(theta, np.zeros(1))
    return levels - at_zero, slope - slope_at_zero


def _terms(theta: Doubles, u: Doubles) -> tuple[Doubles, Doubles]:
    a, b, c = (part[:, None, :] for part in theta)
    size, steep, shifted = softplus(a), softplus(b), u[None, :, None] - c
    wave = np.tanh(steep * shifted)
    inner = size * (1 - wave**2)
    slope = np.stack([sigmoid(a) * wave, inner * shifted * sigmoid(b), -inner * steep + 0 * shifted])
    return (size * wave).sum(axis=2), slope


def softplus(x: Doubles) -> Doubles:
    return np.logaddexp(0, x)


def inverse_softplus(y: float) -> float:
    return float(np.log(np.expm1(y)))


def sigmoid(x: Doubles) -> Doubles:
    return np.asarray(0.5 * (1 + np.tanh(x / 2)))
