"""Derivatives at points of the domain: what every bound has to hold, where the truth itself is not known.

Those of tiny networks with smooth activations come from sixty digits and formulas written down here, so that nothing of
what is tested takes part; those of others are enclosed in float64.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import mpmath as mp
import numpy as np
import torch
from torch import Tensor

from lipcompare import Problem
from lipcompare.gates import Gates
from lipcompare.jacobian import interval_gradient
from lipcompare.network.activations import LeakyReLU
from lipcompare.network.activations.smooth import Smooth
from lipcompare.network.graph import Activate, Affine, Network
from lipcompare.network.interval import Interval
from lipcompare.preactivation import interval_bounds

DIGITS = 60
_MANY, _FEW = 64, 6
"""Points of one domain, in float64 and with many digits."""


@dataclasses.dataclass(frozen=True, eq=False)
class Derivatives:
    """Enclosed derivatives of all rows at points.

    Attributes:
        lower, upper: (batch, points, rows, inputs) in float64.
        inside: (batch, points) whether a point lies in the domain; the others say nothing.
    """

    lower: np.ndarray
    upper: np.ndarray
    inside: np.ndarray

    def norms(self, problem: Problem) -> np.ndarray:
        """Lower bounds (batch, rows) on the dual norms."""
        least = np.maximum(np.maximum(self.lower, -self.upper), 0.0)
        # The norm itself is rounded.
        size = problem.norm.dual.of(torch.from_numpy(least)).numpy() * (1 - 1e-14 * problem.network.in_size)
        attained: np.ndarray = (size * self.inside[..., None]).max(1)
        return attained

    def ranges(self) -> tuple[np.ndarray, np.ndarray]:
        """(batch, rows, inputs): what the least derivative is at most, and the largest at least."""
        out = ~self.inside[..., None, None]
        return np.where(out, np.inf, self.upper).min(1), np.where(out, -np.inf, self.lower).max(1)


def derivatives(problem: Problem) -> Derivatives:
    """At points of each domain: its middle, corners and others."""
    exact = any(isinstance(problem.network.activation(k), Smooth) for k in problem.network.activations)
    exact = exact and all(_known(problem.network, k) for k in problem.network.activations)
    count = _FEW if exact else _MANY
    generator = torch.Generator().manual_seed(0)
    unit = torch.rand(count, problem.network.in_size, generator=generator, dtype=torch.float64)
    unit[: count // 2] = unit[: count // 2].round()
    unit[-1] = 0.5
    lower, upper = (v.unsqueeze(1) for v in problem.box.window)
    points = problem.box.clamp(lower + unit.to(lower) * (upper - lower)).double()  # (batch, points, inputs)
    inside = problem.box.contains(points).cpu().numpy()
    points = points.cpu()
    network = problem.network.to("cpu", torch.float64)
    found = _digits(problem, network, points) if exact else _enclosed(problem, network, points)
    return Derivatives(*found, inside)


def _enclosed(problem: Problem, network: Network, points: Tensor) -> tuple[np.ndarray, np.ndarray]:
    flat = points.flatten(0, 1)
    gates = Gates.from_preactivations(network, interval_bounds(network, Interval(flat, flat)))
    rows = problem.functionals.cpu().double().repeat_interleave(points.shape[1], 0)
    gradient = interval_gradient(network, gates, rows)
    lower, upper = (v.unflatten(0, tuple(points.shape[:2])).numpy() for v in gradient)
    return lower, upper


def _known(network: Network, k: int) -> bool:
    activation = network.activation(k)
    if isinstance(activation, Smooth):
        return activation.name in FUNCTIONS
    return isinstance(activation, LeakyReLU)


def _digits(problem: Problem, network: Network, points: Tensor) -> tuple[np.ndarray, np.ndarray]:
    shape = (*points.shape[:2], problem.rows, network.in_size)
    lower, upper = np.empty(shape), np.empty(shape)
    matrices = {
        k: [m.matrix().tolist() for m in node.maps] for k, node in enumerate(network.nodes) if isinstance(node, Affine)
    }
    with mp.workdps(DIGITS):
        for b, p in np.ndindex(*points.shape[:2]):
            jacobian = _jacobian(network, matrices, points[b, p].tolist())
            for r, functional in enumerate(problem.functionals[b].double().tolist()):
                for i in range(network.in_size):
                    value = mp.fsum(c * line[i] for c, line in zip(functional, jacobian, strict=True))
                    nearest = float(value)
                    lower[b, p, r, i] = np.nextafter(nearest, -np.inf)
                    upper[b, p, r, i] = np.nextafter(nearest, np.inf)
    return lower, upper


def _jacobian(network: Network, matrices: dict[int, list[list[list[float]]]], point: list[float]) -> list[list[mp.mpf]]:
    """(outputs, inputs)."""
    size = len(point)
    values = [[mp.mpf(v) for v in point]]
    slopes = [[[mp.mpf(i == j) for j in range(size)] for i in range(size)]]
    for k, node in enumerate(network.nodes[1:], 1):
        if isinstance(node, Activate):
            sides = [_one(network, k, i, z) for i, z in enumerate(values[node.parent])]
            values.append([value for value, _ in sides])
            slopes.append([[s * v for v in line] for (_, s), line in zip(sides, slopes[node.parent], strict=True)])
            continue
        assert isinstance(node, Affine)
        bias = [0.0] * node.size if node.bias is None else node.bias.tolist()
        out, lines = [mp.mpf(v) for v in bias], [[mp.mpf(0)] * size for _ in range(node.size)]
        for parent, matrix in zip(node.parents, matrices[k], strict=True):
            for i, row in enumerate(matrix):
                out[i] += mp.fsum(w * v for w, v in zip(row, values[parent], strict=True))
                for j in range(size):
                    lines[i][j] += mp.fsum(w * line[j] for w, line in zip(row, slopes[parent], strict=True))
        values.append(out)
        slopes.append(lines)
    return slopes[-1]


def _one(network: Network, k: int, neuron: int, z: mp.mpf) -> tuple[mp.mpf, mp.mpf]:
    activation = network.activation(k)
    if isinstance(activation, Smooth):
        function, slope = FUNCTIONS[activation.name]
        return function(z), slope(z)
    assert isinstance(activation, LeakyReLU)
    alpha = float(torch.as_tensor(activation.alpha).expand(neuron + 1)[neuron])
    return (z, mp.mpf(1)) if z > 0 else (alpha * z, mp.mpf(alpha))


def _sigmoid(z: mp.mpf) -> mp.mpf:
    return 1 / (1 + mp.exp(-z))


def _bell(z: mp.mpf) -> mp.mpf:
    """The sigmoid's slope."""
    e = mp.exp(-abs(z))
    return e / (1 + e) ** 2


def _density(z: mp.mpf) -> mp.mpf:
    return mp.exp(-z * z / 2) / mp.sqrt(2 * mp.pi)


_BEYOND = 1e8
"""From here on the normal distribution is 0 or 1 up to exp(-5e15), which nothing that it is multiplied with undoes."""


def _normal(z: mp.mpf) -> mp.mpf:
    if abs(z) > _BEYOND:  # mpmath's erfc decides by a float how it goes on, and overflows
        return mp.mpf(1) if z > 0 else mp.mpf(0)
    return mp.erfc(-z / mp.sqrt(2)) / 2


FUNCTIONS: dict[str, tuple[Callable[[mp.mpf], mp.mpf], Callable[[mp.mpf], mp.mpf]]] = {
    "sigmoid": (_sigmoid, _bell),
    "tanh": (mp.tanh, lambda z: 4 * _bell(2 * z)),
    "softplus": (lambda z: max(z, mp.mpf(0)) + mp.log1p(mp.exp(-abs(z))), _sigmoid),
    "silu": (lambda z: z * _sigmoid(z), lambda z: _sigmoid(z) + z * _bell(z)),
    "gelu": (lambda z: z * _normal(z), lambda z: _normal(z) + z * _density(z)),
    "elu(1)": (lambda z: z if z > 0 else mp.expm1(z), lambda z: mp.mpf(1) if z > 0 else mp.exp(z)),
    "softsign": (lambda z: z / (1 + abs(z)), lambda z: 1 / (1 + abs(z)) ** 2),
    "arctan": (mp.atan, lambda z: 1 / (1 + z * z)),
    "erf": (mp.erf, lambda z: 2 * _density(z * mp.sqrt(2)) * mp.sqrt(2)),
    "exp": (mp.exp, mp.exp),
    "square": (lambda z: z * z, lambda z: 2 * z),
}
"""Value and derivative."""
