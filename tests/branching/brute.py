"""The exact value by trying every activation region, with code that shares nothing with the methods under test."""

from __future__ import annotations

import numpy as np
import scipy.optimize
import torch

from lipcompare import Network, Norm, Problem
from lipcompare.network import Activate, LeakyReLU


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
