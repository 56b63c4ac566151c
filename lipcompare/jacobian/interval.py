"""Interval arithmetic on the chain rule (the IBP and FastLip baselines, Weng et al. 2018, arXiv 1804.09699), rounded
outward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lipcompare.gates import Gates
from lipcompare.network.graph import Activate, Affine, Network, fold_backward
from lipcompare.network.interval import Interval
from lipcompare.network.linear_maps import LinearMap
from lipcompare.rounding import SPARE, allowance, floor


class Reach(NamedTuple):
    """A gradient's interval, and what the rounding of anything computed on the way to it is measured by.

    Attributes:
        interval: (batch, rows, size).
        size: the sum of the absolute values of all terms, whatever lines they came through, (batch, rows, size).
        support: positive where any path through open gates leads to the output; elsewhere the gradient is 0 exactly.
    """

    interval: Interval
    size: Tensor
    support: Tensor

    @property
    def scale(self) -> Tensor:
        """``size`` with what covers underflow; 0 where the gradient is exactly 0."""
        return self.size + floor(self.size.dtype) * (self.support > 0)


def interval_gradient(network: Network, gates: Gates, functionals: Tensor) -> Interval:
    """Interval (batch, rows, inputs) of the gradient with respect to the input.

    Args:
        functionals: (batch, rows, outputs).
    """

    def activation(k: int, node: Activate, gradient: Reach) -> Reach:
        return through_gate(gates.slopes[k], gradient)

    last = len(network.nodes) - 1
    found = fold_backward(network, {last: at_output(functionals)}, activation, through_maps, add=sum_of)
    return (nothing(network, functionals) if found is None else found).interval


def scales(network: Network, gates: Gates, functionals: Tensor) -> dict[int, Tensor]:
    """What the rounding of the gradient (batch, rows, size) at every activation and at the input is measured by."""
    found: dict[int, Tensor] = {}
    steepest = {k: slope.magnitude.unsqueeze(1) for k, slope in gates.slopes.items()}
    open_gates = {k: (slope > 0).to(functionals.dtype) for k, slope in steepest.items()}

    def scale(both: Tensor) -> Tensor:
        return both[0] + floor(both.dtype) * (both[1] > 0)

    def activation(k: int, node: Activate, both: Tensor) -> Tensor:
        found[k] = scale(both)
        return torch.stack([both[0] * steepest[k], (both[1] > 0) * open_gates[k]])

    def affine(k: int, node: Affine, maps: Sequence[LinearMap], both: Tensor) -> Iterator[Tensor]:
        return (m.absolute.adjoint(both) for m in maps)

    first = torch.stack([functionals.abs(), (functionals != 0).to(functionals.dtype)])
    start = fold_backward(network, {len(network.nodes) - 1: first}, activation, affine)
    zero = functionals.new_zeros(*functionals.shape[:-1], network.in_size)
    found[0] = zero if start is None else scale(start)
    return found


def at_output(functionals: Tensor) -> Reach:
    """The gradient at the output."""
    return Reach(Interval(functionals, functionals), functionals.abs(), (functionals != 0).to(functionals.dtype))


def nothing(network: Network, functionals: Tensor) -> Reach:
    """The gradient at the input of an output that does not depend on it."""
    zero = functionals.new_zeros(*functionals.shape[:-1], network.in_size)
    return Reach(Interval(zero, zero), zero, zero)


def through_gate(slope: Interval, gradient: Reach, size: Tensor | None = None) -> Reach:
    """The products of a gradient (batch, rows, size) and slopes (batch, size).

    ``size`` is that of the lines around the product, where such are used.
    """
    lo, hi = slope.lower.unsqueeze(1), slope.upper.unsqueeze(1)
    lower, upper = gradient.interval
    corners = torch.stack([lo * lower, lo * upper, hi * lower, hi * upper])
    steepest = slope.magnitude.unsqueeze(1)
    return Reach(
        Interval(corners.amin(0), corners.amax(0)),
        steepest * gradient.size if size is None else size,
        (gradient.support > 0) * (steepest > 0).to(lower.dtype),
    )


def through_maps(k: int, node: Affine, maps: Sequence[LinearMap], gradient: Reach) -> Iterator[Reach]:
    """What an affine node hands back to its parents.

    Each entry is a sum of ``fan_out`` products, so its rounding is relative to the sum of their absolute values.
    """
    interval = gradient.interval
    dtype = interval.lower.dtype
    for m in maps:
        center = m.adjoint(interval.center)
        absolute = torch.stack([interval.radius, interval.magnitude, gradient.size, gradient.support])
        radius, magnitude, size, support = m.absolute.adjoint(absolute)
        terms = magnitude + floor(dtype) * (support > 0)
        radius = radius + allowance(m.fan_out + SPARE, dtype) * terms
        rising, falling = _signs(m, interval, support)
        lower, upper = center - radius, center + radius
        # A sum of terms of one sign has that sign, whatever rounding may do to its size.
        lower = torch.where(falling > 0, lower, lower.clamp(min=0))
        upper = torch.where(rising > 0, upper, upper.clamp(max=0))
        yield Reach(Interval(lower, upper), size, support)


def _signs(m: LinearMap, interval: Interval, either: Tensor) -> tuple[Tensor, Tensor]:
    """Positive where any term of the adjoint may be positive, and where any may be negative.

    ``either`` is the answer for a map that does not know its signs.
    """
    if m.positive is None or m.negative is None:
        return either, either
    dtype = interval.lower.dtype
    sides = torch.stack([(interval.upper > 0).to(dtype), (interval.lower < 0).to(dtype)])
    same, other = m.positive.adjoint(sides), m.negative.adjoint(sides)
    return same[0] + other[1], same[1] + other[0]


def sum_of(first: Reach, second: Reach) -> Reach:
    """The sums of two values."""
    lower, upper = (a + b for a, b in zip(first.interval, second.interval, strict=True))
    return Reach(Interval(lower, upper), first.size + second.size, first.support + second.support)
