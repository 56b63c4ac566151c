"""Interval arithmetic on the chain rule (the IBP and FastLip baselines, Weng et al. 2018, arXiv 1804.09699)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lipcompare.gates import Gates
from lipcompare.network.graph import Activate, Affine, Network, fold_backward
from lipcompare.network.interval import Interval
from lipcompare.network.linear_maps import LinearMap


def interval_gradient(network: Network, gates: Gates, functionals: Tensor) -> Interval:
    """Interval (batch, rows, inputs) of the gradient with respect to the input.

    Args:
        functionals: (batch, rows, outputs).
    """

    def activation(k: int, node: Activate, gradient: Interval) -> Interval:
        return through_gate(gates.slopes[k], gradient)

    last = len(network.nodes) - 1
    found = fold_backward(network, {last: Interval(functionals, functionals)}, activation, through_maps, add=sum_of)
    return nothing(network, functionals) if found is None else found


def nothing(network: Network, functionals: Tensor) -> Interval:
    """The gradient at the input of an output that does not depend on it."""
    zero = functionals.new_zeros(*functionals.shape[:-1], network.in_size)
    return Interval(zero, zero)


def through_gate(slope: Interval, gradient: Interval) -> Interval:
    """The products of a gradient (batch, rows, size) and slopes (batch, size)."""
    lo, hi = slope.lower.unsqueeze(1), slope.upper.unsqueeze(1)
    corners = torch.stack([lo * gradient.lower, lo * gradient.upper, hi * gradient.lower, hi * gradient.upper])
    return Interval(corners.amin(0), corners.amax(0))


def through_maps(k: int, node: Affine, maps: Sequence[LinearMap], gradient: Interval) -> Iterator[Interval]:
    """What an affine node hands back to its parents."""
    for m in maps:
        center, radius = m.adjoint(gradient.center), m.absolute.adjoint(gradient.radius)
        yield Interval(center - radius, center + radius)


def sum_of(first: Interval, second: Interval) -> Interval:
    """The sums of two values."""
    return Interval(first.lower + second.lower, first.upper + second.upper)
