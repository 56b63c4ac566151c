"""Interval arithmetic on the chain rule (the IBP and FastLip baselines, Weng et al. 2018, arXiv 1804.09699)."""

from __future__ import annotations

import torch
from torch import Tensor

from lipcompare.gates import Gates
from lipcompare.network.graph import Activate, Affine, Network
from lipcompare.network.interval import Interval


def interval_gradients(network: Network, gates: Gates, functionals: Tensor) -> dict[int, Interval]:
    """Interval of the gradient with respect to every node's value.

    Args:
        functionals: (batch, rows, outputs).

    Returns:
        Per node that the output depends on (0 is the input) an interval (batch, rows, size).
    """
    gradients: dict[int, Interval] = {len(network.nodes) - 1: Interval(functionals, functionals)}
    for k in range(len(network.nodes) - 1, 0, -1):
        pass_back(network, gates, gradients, k)
    return gradients if 0 in gradients else {**gradients, 0: nothing(network, functionals)}


def nothing(network: Network, functionals: Tensor) -> Interval:
    """The gradient at the input of an output that does not depend on it."""
    zero = functionals.new_zeros(*functionals.shape[:-1], network.in_size)
    return Interval(zero, zero)


def pass_back(network: Network, gates: Gates, gradients: dict[int, Interval], k: int) -> None:
    """Add the interval of node ``k``'s gradient, which is complete, to those of its parents."""
    if k not in gradients:
        return
    node, gradient = network.nodes[k], gradients[k]
    if isinstance(node, Activate):
        slope = gates.slopes[k]
        lo, hi = slope.lower.unsqueeze(1), slope.upper.unsqueeze(1)
        corners = torch.stack([lo * gradient.lower, lo * gradient.upper, hi * gradient.lower, hi * gradient.upper])
        _add(gradients, node.parent, Interval(corners.amin(0), corners.amax(0)))
    elif isinstance(node, Affine):
        for p, m in node.terms:
            center = m.adjoint(gradient.center)
            radius = m.absolute.adjoint(gradient.radius)
            _add(gradients, p, Interval(center - radius, center + radius))


def _add(gradients: dict[int, Interval], k: int, term: Interval) -> None:
    old = gradients.get(k)
    gradients[k] = term if old is None else Interval(old.lower + term.lower, old.upper + term.upper)
