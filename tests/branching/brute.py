"""The exact value by trying every activation region, with code that shares nothing with the methods under test."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import scipy.optimize
import torch

from lipcompare import Network, Norm, Problem
from lipcompare.network import Activate, Affine, Input, LeakyReLU
from lipcompare.network.linear_maps import Dense


def exact_rows(problem: Problem) -> np.ndarray:
    """``L_i`` of every row of the only example, (rows,): the largest norm over all regions that meet the box."""
    values = np.zeros(problem.rows)
    order = {Norm.INF: 1, Norm.TWO: 2, Norm.ONE: np.inf}[problem.norm]
    for slopes in regions(problem.network, problem.box.lower[0].cpu().numpy(), problem.box.upper[0].cpu().numpy()):
        J = jacobian(problem.network, slopes)
        rows = problem.functionals[0].cpu().numpy() @ J
        values = np.maximum(values, np.linalg.norm(rows, ord=order, axis=1))
    return values


def operator_norm(problem: Problem, order: float) -> float:
    """The largest operator norm of the whole Jacobian."""
    boxes = problem.box.lower[0].cpu().numpy(), problem.box.upper[0].cpu().numpy()
    return max(float(np.linalg.norm(jacobian(problem.network, s), ord=order)) for s in regions(problem.network, *boxes))


def jacobian(network: Network, slopes: dict[int, np.ndarray]) -> np.ndarray:
    """Jacobian (outputs, inputs) under a pattern."""
    return _forward(network, slopes)[-1][:, 1:]


def _forward(network: Network, slopes: dict[int, np.ndarray]) -> list[np.ndarray]:
    """Every node's value as an affine function of the input, (size, 1 + inputs), as far as the pattern reaches."""
    inputs = network.in_size
    values: list[np.ndarray] = [np.hstack([np.zeros((inputs, 1)), np.eye(inputs)])]
    for k, node in enumerate(network.nodes[1:], 1):
        if isinstance(node, Activate):
            if k not in slopes:
                break
            values.append(values[node.parent] * slopes[k][:, None])
        else:
            total = sum(m.to(torch.device("cpu"), torch.float64).matrix().numpy() @ values[p] for p, m in node.terms)
            if node.bias is not None:
                total[:, 0] += node.bias.cpu().numpy()
            values.append(total)
    return values


def regions(network: Network, lower: np.ndarray, upper: np.ndarray):
    """Patterns (slopes by node) of all regions that meet the box, found node by node and neuron by neuron."""

    def extend(slopes, rows):
        left = [k for k in network.activations if k not in slopes]
        if not left:
            yield slopes
            return
        k = left[0]
        node = network.nodes[k]
        z = _forward(network, slopes)[node.parent]
        alpha = np.broadcast_to(torch.as_tensor(node.activation.alpha, dtype=torch.float64).cpu().numpy(), (node.size,))
        assert isinstance(node.activation, LeakyReLU)

        def choose(i, signs, constraints):
            if i == node.size:
                yield from extend({**slopes, k: np.where(np.array(signs) > 0, 1.0, alpha)}, constraints)
                return
            for sign in (1, -1):
                more = [*constraints, sign * z[i]]
                if feasible(np.array(more), lower, upper):
                    yield from choose(i + 1, [*signs, sign], more)

        yield from choose(0, [], rows)

    yield from extend({}, [])


def feasible(rows: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> bool:
    """Whether ``rows[:, 0] + rows[:, 1:] x >= 0`` for some x of the box."""
    reach = rows[:, 0] + np.maximum(rows[:, 1:] * lower, rows[:, 1:] * upper).sum(1)
    if (reach < 0).any():
        return False
    result = scipy.optimize.linprog(
        np.zeros(len(lower)), A_ub=-rows[:, 1:], b_ub=rows[:, 0], bounds=list(zip(lower, upper, strict=True))
    )
    return result.status == 0


def exact_gradient(network: Network, slopes: dict[int, torch.Tensor], row: list[float]) -> list[Fraction]:
    """The chain rule through a chain of layers under a pattern, in rational arithmetic."""
    gradient = [Fraction(c) for c in row]
    for k in range(len(network.nodes) - 1, 0, -1):
        node = network.nodes[k]
        if isinstance(node, Affine):
            columns = zip(*node.maps[0].matrix().tolist(), strict=True)
            gradient = [
                sum((g * Fraction(w) for g, w in zip(gradient, column, strict=True)), Fraction(0)) for column in columns
            ]
        else:
            gradient = [g * Fraction(s) for g, s in zip(gradient, slopes[k].tolist(), strict=True)]
    return gradient


def cancelling() -> Iterator[tuple[Problem, Fraction]]:
    """Problems of one region and their exact values, of which floating point is often under: two paths leave a
    millionth of each other, so the rounding of either is more than that of what is left."""
    random = torch.Generator().manual_seed(0)
    below = 0
    for _ in range(12):
        weight, last = torch.rand(2, 1, 1, generator=random, dtype=torch.float64)
        ones = torch.ones(2, dtype=torch.float64)
        layers = (Affine((0,), (Dense(torch.cat([weight, weight * (1 + 1e-6)])),), ones), Activate(1, LeakyReLU(), 2))
        out = Affine((2,), (Dense(torch.cat([last, -last], 1)),), None)
        problem = Problem.around(Network((Input(1), *layers, out), (1,), (1,)), 0.0, 0.5)
        exact = abs(exact_gradient(problem.network, {2: ones}, [1.0])[0])
        computed = problem.network.pull_back({2: ones}, problem.functionals[0, 0])
        below += Fraction(float(computed.abs().sum())) * (1 + Fraction(1, 10**13)) < exact
        yield problem, exact
    assert below > 2
