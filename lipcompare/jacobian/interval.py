"""Interval arithmetic on the chain rule (the IBP and FastLip baselines, Weng et al. 2018, arXiv 1804.09699), rounded
outward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lipcompare.gates import Gates
from lipcompare.network.activations import Activation
from lipcompare.network.graph import Activate, Affine, Network, fold_backward
from lipcompare.network.interval import Interval
from lipcompare.network.linear_maps import Dense, LinearMap
from lipcompare.rounding import SPARE, allowance, floor

_FEW = 2**14
"""Entries of a gradient up to which one product with more terms is quicker than several with fewer."""


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
        return self.size.add(self.support.sign(), alpha=floor(self.size.dtype))

    def of_all(self, batch: int) -> Reach:
        """The same for every example, where all have the same so far."""
        if self.size.shape[0] == batch:
            return self
        lower, upper, size, support = (v.expand(batch, -1, -1) for v in (*self.interval, self.size, self.support))
        return Reach(Interval(lower, upper), size, support)


def interval_gradient(network: Network, gates: Gates, functionals: Tensor) -> Interval:
    """Interval (batch, rows, inputs) of the gradient with respect to the input.

    Args:
        functionals: (batch, rows, outputs).
    """
    return reaches(network, gates, functionals)[0].interval


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


def reaches(network: Network, gates: Gates, functionals: Tensor) -> dict[int, Reach]:
    """Interval arithmetic on the gradient at every activation that the output depends on, and at the input."""
    found: dict[int, Reach] = {}

    def activation(k: int, node: Activate, gradient: Reach) -> Reach:
        found[k] = gradient.of_all(len(functionals))
        return through_gate(node.activation, gates.slopes[k], gradient)

    last = len(network.nodes) - 1
    start = fold_backward(network, {last: at_output(functionals)}, activation, through_maps, add=sum_of)
    found[0] = (nothing(network, functionals) if start is None else start).of_all(len(functionals))
    return found


def at_output(functionals: Tensor) -> Reach:
    """The gradient at the output: of one example where all ask for the same."""
    functionals = functionals[:1] if functionals.stride(0) == 0 else functionals
    return Reach(Interval(functionals, functionals), functionals.abs(), (functionals != 0).to(functionals.dtype))


def nothing(network: Network, functionals: Tensor) -> Reach:
    """The gradient at the input of an output that does not depend on it."""
    zero = functionals.new_zeros(*functionals.shape[:-1], network.in_size)
    return Reach(Interval(zero, zero), zero, zero)


def through_gate(activation: Activation, slope: Interval, gradient: Reach, size: Tensor | None = None) -> Reach:
    """The products of a gradient (batch, rows, size) and slopes (batch, size) of an activation.

    ``size`` is that of the lines around the product, where such are used.
    """
    lo, hi, steepest = (v.unsqueeze(1) for v in (*slope, slope.magnitude))
    lower, upper = gradient.interval
    if activation.increasing:
        product = Interval(torch.minimum(lo * lower, hi * lower), torch.maximum(lo * upper, hi * upper))
    else:
        corners = torch.stack([lo * lower, lo * upper, hi * lower, hi * upper])
        product = Interval(corners.amin(0), corners.amax(0))
    size = steepest * gradient.size if size is None else size
    return Reach(product, size, gradient.support.sign() * steepest.sign())


def through_maps(k: int, node: Affine, maps: Sequence[LinearMap], gradient: Reach) -> Iterator[Reach]:
    """What an affine node hands back to its parents.

    Each entry is a sum of ``fan_out`` products, so its rounding is relative to the sum of their absolute values.
    """
    dtype = gradient.size.dtype
    for m in maps:
        few = gradient.size.numel() <= _FEW
        apart = m.apart if few and isinstance(m, Dense) else None
        ends, rises, falls, terms, size, support = (
            _by_absolute_values(m, gradient) if apart is None else _by_signs(apart, gradient)
        )
        terms, share = terms.add(support.sign(), alpha=floor(dtype)), allowance(m.fan_out + SPARE, dtype)
        lower, upper = ends.lower.sub(terms, alpha=share), ends.upper.add(terms, alpha=share)
        # A sum of terms of one sign has that sign, whatever rounding may do to its size.
        # Interpolation with 0 or 1 selects several times as fast as where() does with mixed masks.
        lower = torch.lerp(lower.clamp(min=0), lower, falls.sign())
        upper = torch.lerp(upper.clamp(max=0), upper, rises.sign())
        yield Reach(Interval(lower, upper), size, support)


class _Image(NamedTuple):
    """What a map makes of a gradient, each (batch, rows, size): the ends as they are computed, where any term may be
    positive and where any may be negative, the sum of their absolute values, and the new size and support."""

    ends: Interval
    rises: Tensor
    falls: Tensor
    terms: Tensor
    size: Tensor
    support: Tensor


def _by_signs(apart: Tensor, gradient: Reach) -> _Image:
    """All in one product with the entries of either sign ``apart``; what multiplies a zero adds nothing to a sum."""
    (lower, upper), size, support = gradient
    above, below = (upper > 0).to(size.dtype), (lower < 0).to(size.dtype)
    other_lower, other_upper = -upper, -lower
    common = [torch.maximum(other_upper, upper), size, support]
    positive = torch.stack([lower, upper, above, below, *common])
    negative = torch.stack([other_lower, other_upper, below, above, *common])
    low, high, *rest = (torch.cat([positive, negative], -1) @ apart).unbind()
    return _Image(Interval(low, high), *rest)


def _by_absolute_values(m: LinearMap, gradient: Reach) -> _Image:
    """By middle and radius, for maps where a product with the entries of either sign is not cheap."""
    lower, upper = gradient.interval
    absolute = lower.new_empty(4, *lower.shape)  # no copies: these are large
    torch.sub(upper, lower, out=absolute[0])
    torch.maximum(-lower, upper, out=absolute[1])
    absolute[2], absolute[3] = gradient.size, gradient.support
    width, terms, size, support = m.absolute.adjoint(absolute)
    twice = m.adjoint(lower + upper)
    ends = Interval((twice - width).mul_(0.5), (twice + width).mul_(0.5))
    return _Image(ends, *_signs(m, gradient.interval, support), terms, size, support)


def _signs(m: LinearMap, interval: Interval, either: Tensor) -> tuple[Tensor, Tensor]:
    """Positive where any term of the adjoint may be positive, and where any may be negative.

    ``either`` is the answer for a map that does not know its signs.
    """
    if m.positive is None or m.negative is None:
        return either, either
    sides = either.new_empty(2, *interval.lower.shape)
    torch.gt(interval.upper, 0, out=sides[0])
    torch.lt(interval.lower, 0, out=sides[1])
    same, other = m.positive.adjoint(sides), m.negative.adjoint(sides)
    return same[0] + other[1], same[1] + other[0]


def sum_of(first: Reach, second: Reach) -> Reach:
    """The sums of two values."""
    lower, upper = (a + b for a, b in zip(first.interval, second.interval, strict=True))
    return Reach(Interval(lower, upper), first.size + second.size, first.support + second.support)
