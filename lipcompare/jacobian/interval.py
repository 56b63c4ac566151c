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
from lipcompare.rounding import SPARE, allowance, floor, underflow

_FEW = 2**14
"""Entries of a gradient up to which one product with more terms is quicker than several with fewer."""


class Reach(NamedTuple):
    """A gradient's interval, and what the rounding of anything computed on the way to it is measured by.

    Attributes:
        interval: (batch, rows, size).
        size: the sum of the absolute values of all terms, whatever lines they came through, (batch, rows, size).
        rises, falls: positive where any term may be positive, and where any may be negative; 0 elsewhere. That is
            known beside the interval, since a product with a slope may underflow to 0.
    """

    interval: Interval
    size: Tensor
    rises: Tensor
    falls: Tensor

    @property
    def underflow(self) -> Tensor:
        """What covers underflow in a sum of absolute values; 0 where the gradient is exactly 0."""
        return _underflow(self.rises, self.falls)

    @property
    def scale(self) -> Tensor:
        """``size`` with that."""
        return self.size + self.underflow

    def of_all(self, batch: int) -> Reach:
        """The same for every example, where all have the same so far."""
        if self.size.shape[0] == batch:
            return self
        lower, upper, *rest = (v.expand(batch, -1, -1) for v in (*self.interval, *self[1:]))
        return Reach(Interval(lower, upper), *rest)

    def decided(self) -> Reach:
        """``rises`` and ``falls`` are 0 also where the interval says so, which must allow for underflow."""
        above, below = torch.empty_like(self.interval.upper), torch.empty_like(self.interval.lower)
        torch.gt(self.interval.upper, 0, out=above)
        torch.lt(self.interval.lower, 0, out=below)
        return self._replace(rises=above.mul_(self.rises), falls=below.mul_(self.falls))


def interval_gradient(network: Network, gates: Gates, functionals: Tensor) -> Interval:
    """Interval (batch, rows, inputs) of the gradient with respect to the input.

    Args:
        functionals: (batch, rows, outputs).
    """
    return reaches(network, gates, functionals)[0].interval


def scales(network: Network, gates: Gates, functionals: Tensor) -> dict[int, Tensor]:
    """What the rounding of the gradient (batch, rows, size) at every activation and at the input is measured by.

    That of tangents that gates add to it too: what underflow takes from those meets the gradient at the gate.
    """
    total = functionals.new_ones(*functionals.shape[:-1], 1)
    sizes: dict[int, Tensor] = {}
    steepest = {k: slope.magnitude.unsqueeze(1) for k, slope in gates.slopes.items()}
    open_gates = {k: (slope > 0).to(functionals.dtype) for k, slope in steepest.items()}

    def scale(both: Tensor) -> Tensor:
        return both[0] + underflow(total) * (both[1] > 0)

    def activation(k: int, node: Activate, both: Tensor) -> Tensor:
        nonlocal total
        sizes[k] = scale(both)
        total = total + sizes[k].sum(-1, keepdim=True)
        return torch.stack([sizes[k] * steepest[k], (both[1] > 0) * open_gates[k]])

    def affine(k: int, node: Affine, maps: Sequence[LinearMap], both: Tensor) -> Iterator[Tensor]:
        both = torch.stack([scale(both), both[1]])
        return (m.absolute.adjoint(both) for m in maps)

    first = torch.stack([functionals.abs(), (functionals != 0).to(functionals.dtype)])
    start = fold_backward(network, {len(network.nodes) - 1: first}, activation, affine)
    zero = functionals.new_zeros(*functionals.shape[:-1], network.in_size)
    sizes[0] = zero if start is None else scale(start)
    return sizes


def reaches(network: Network, gates: Gates, functionals: Tensor) -> dict[int, Reach]:
    """Interval arithmetic on the gradient at every activation that the output depends on, and at the input."""
    reached: dict[int, Reach] = {}

    def activation(k: int, node: Activate, gradient: Reach) -> Reach:
        reached[k] = gradient.of_all(len(functionals))
        return through_gate(node.activation, gates.slopes[k], gradient)

    last = len(network.nodes) - 1
    start = fold_backward(network, {last: at_output(functionals)}, activation, through_maps, add=sum_of)
    reached[0] = (nothing(network, functionals) if start is None else start).of_all(len(functionals))
    return reached


def at_output(functionals: Tensor) -> Reach:
    """The gradient at the output: of one example where all ask for the same."""
    functionals = functionals[:1] if functionals.stride(0) == 0 else functionals
    rises, falls = (functionals > 0).to(functionals.dtype), (functionals < 0).to(functionals.dtype)
    return Reach(Interval(functionals, functionals), functionals.abs(), rises, falls)


def nothing(network: Network, functionals: Tensor) -> Reach:
    """The gradient at the input of an output that does not depend on it."""
    zero = functionals.new_zeros(*functionals.shape[:-1], network.in_size)
    return Reach(Interval(zero, zero), zero, zero, zero)


def through_gate(activation: Activation, slope: Interval, gradient: Reach, size: Tensor | None = None) -> Reach:
    """The products of a gradient (batch, rows, size) and slopes (batch, size) of an activation.

    ``size`` is that of the lines around the product, where such are used.
    """
    lo, hi, steepest = (v.unsqueeze(1) for v in (*slope, slope.magnitude))
    lower, upper = gradient.interval
    rises, falls = gradient.rises, gradient.falls
    if activation.increasing:
        product = Interval(torch.minimum(lo * lower, hi * lower), torch.maximum(lo * upper, hi * upper))
        same = hi.sign()
        rises, falls = rises * same, falls * same
    else:
        corners = torch.stack([lo * lower, lo * upper, hi * lower, hi * upper])
        product = Interval(corners.amin(0), corners.amax(0))
        same, opposite = hi.clamp(min=0).sign(), (-lo).clamp(min=0).sign()
        rises, falls = rises * same + falls * opposite, rises * opposite + falls * same
    return Reach(product, steepest * gradient.scale if size is None else size, rises, falls)


def through_maps(k: int, node: Affine, maps: Sequence[LinearMap], gradient: Reach) -> Iterator[Reach]:
    """What an affine node hands back to its parents.

    Each entry is a sum of ``fan_out`` products, so its rounding is relative to the sum of their absolute values. What
    underflow may have taken from a factor is multiplied by the weight, and what it may take from a product is not.
    """
    dtype = gradient.size.dtype
    for m in maps:
        few = gradient.size.numel() <= _FEW
        apart = m.apart if few and isinstance(m, Dense) else None
        ends, terms, size, rises, falls = (
            _by_absolute_values(m, gradient) if apart is None else _by_signs(apart, gradient)
        )
        terms, share = terms + _underflow(rises, falls), allowance(m.fan_out + SPARE, dtype)
        lower, upper = ends.lower.sub(terms, alpha=share), ends.upper.add(terms, alpha=share)
        # A sum of terms of one sign has that sign, whatever rounding may do to its size.
        # Interpolation with 0 or 1 selects several times as fast as where() does with mixed masks.
        lower, upper = torch.lerp(lower.clamp(min=0), lower, falls), torch.lerp(upper.clamp(max=0), upper, rises)
        yield Reach(Interval(lower, upper), size, rises, falls).decided()


def _underflow(rises: Tensor, falls: Tensor) -> Tensor:
    return (rises + falls).sign_().mul_(floor(rises.dtype))


class _Image(NamedTuple):
    """What a map makes of a gradient, each (batch, rows, size): the ends as they are computed, the sum of the absolute
    values of their terms (with what covers underflow in factors), and the new ``size``, ``rises`` and ``falls``."""

    ends: Interval
    terms: Tensor
    size: Tensor
    rises: Tensor
    falls: Tensor


def _by_signs(apart: Tensor, gradient: Reach) -> _Image:
    """All in one product with the entries of either sign ``apart``; what multiplies a zero adds nothing to a sum."""
    (lower, upper), size, rises, falls = gradient
    underflow = gradient.underflow
    other_lower, other_upper = -upper, -lower
    terms, size = torch.maximum(other_upper, upper) + underflow, size + underflow
    positive = torch.stack([lower, upper, terms, size, rises, falls])
    negative = torch.stack([other_lower, other_upper, terms, size, falls, rises])
    low, high, terms, size, rises, falls = (torch.cat([positive, negative], -1) @ apart).unbind()
    return _Image(Interval(low, high), terms, size, rises.sign(), falls.sign())


def _by_absolute_values(m: LinearMap, gradient: Reach) -> _Image:
    """By middle and radius, for maps where a product with the entries of either sign is not cheap."""
    lower, upper = gradient.interval
    absolute = lower.new_empty(3, *lower.shape)  # no copies: these are large
    torch.sub(upper, lower, out=absolute[0])
    underflow = gradient.underflow
    torch.add(torch.maximum(-lower, upper), underflow, out=absolute[1])
    torch.add(gradient.size, underflow, out=absolute[2])
    width, terms, size = m.absolute.adjoint(absolute)
    twice = m.adjoint(lower + upper)
    ends = Interval((twice - width).mul_(0.5), (twice + width).mul_(0.5))
    return _Image(ends, terms, size, *m.adjoint_signs(gradient.rises, gradient.falls))


def sum_of(first: Reach, second: Reach) -> Reach:
    """The sums of two values."""
    lower, upper = (a + b for a, b in zip(first.interval, second.interval, strict=True))
    size, rises, falls = (a + b for a, b in zip(first[1:], second[1:], strict=True))
    return Reach(Interval(lower, upper), size, rises, falls)
