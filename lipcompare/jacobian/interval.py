"""Interval arithmetic on the chain rule (the IBP and FastLip baselines, Weng et al. 2018, arXiv 1804.09699), rounded
outward."""

from __future__ import annotations

import functools
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

    What is known of either side of 0 is kept alike, so that one operation does for both.

    Attributes:
        ends: how far it may reach down and up, ``(-lower, upper)``: (2, batch, rows, size).
        size: the sum of the absolute values of all terms, whatever lines they came through, (batch, rows, size).
        sides: positive where any term may be negative, and where any may be positive; 0 elsewhere. Of the shape of
            ``ends``. That is known beside the interval, since a product with a slope may underflow to 0.
    """

    ends: Tensor
    size: Tensor
    sides: Tensor

    @property
    def interval(self) -> Interval:
        """The interval (batch, rows, size)."""
        down, up = self.ends.unbind()
        return Interval(-down, up)

    @property
    def scale(self) -> Tensor:
        """``size`` with what covers underflow in a sum of absolute values; 0 where the gradient is exactly 0."""
        return _covered(self.size, self.sides)

    def of_all(self, batch: int) -> Reach:
        """The same for every example, where all have the same so far."""
        if self.size.shape[0] == batch:
            return self
        ends, sides = (both.expand(-1, batch, -1, -1) for both in (self.ends, self.sides))
        return Reach(ends, self.size.expand(batch, -1, -1), sides)

    def within(self, interval: Interval) -> Reach:
        """The same with an interval that holds and is no wider."""
        return self._replace(ends=torch.stack([-interval.lower, interval.upper]))

    def decided(self) -> Reach:
        """``sides`` are 0 also where the interval says so, which must allow for underflow: as a map's does, and not
        what comes straight from a gate, whose product may be 0 by underflow alone."""
        beyond = torch.empty_like(self.ends)
        torch.gt(self.ends, 0, out=beyond)
        return self._replace(sides=beyond.mul_(self.sides))


def _covered(size: Tensor, sides: Tensor) -> Tensor:
    """A sum of absolute values with what covers underflow in its terms, nothing where there are none."""
    return size.add(_either(sides), alpha=floor(size.dtype))


def _either(sides: Tensor) -> Tensor:
    """Positive where any term is not 0."""
    falls, rises = sides.unbind()  # quicker than a sum over so short an axis
    return falls + rises


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
    ends = torch.stack([-functionals, functionals])
    return Reach(ends, functionals.abs(), ends.sign().clamp_(min=0))


def nothing(network: Network, functionals: Tensor) -> Reach:
    """The gradient at the input of an output that does not depend on it."""
    zero = functionals.new_zeros(2, *functionals.shape[:-1], network.in_size)
    return Reach(zero, zero[0], zero)


def through_gate(activation: Activation, slope: Interval, gradient: Reach, size: Tensor | None = None) -> Reach:
    """The products of a gradient (batch, rows, size) and slopes (batch, size) of an activation.

    ``size`` is that of the lines around the product, where such are used.
    """
    lo, hi = (v.unsqueeze(1) for v in slope)
    low, high = lo * gradient.ends, hi * gradient.ends
    if activation.increasing:
        ends, sides = torch.maximum(low, high), gradient.sides * hi.sign()
    else:
        # Where a slope is negative either end comes from the other.
        ends = torch.maximum(torch.maximum(low, high), -torch.minimum(low, high).flip(0))
        same, opposite = hi.clamp(min=0).sign(), (-lo).clamp(min=0).sign()
        sides = gradient.sides * same + gradient.sides.flip(0) * opposite
    if size is None:
        size = slope.magnitude.unsqueeze(1) * gradient.scale
    return Reach(ends, size, sides)


def through_maps(k: int, node: Affine, maps: Sequence[LinearMap], gradient: Reach) -> Iterator[Reach]:
    """What an affine node hands back to its parents.

    Each entry is a sum of ``fan_out`` products, so its rounding is relative to the sum of their absolute values. What
    underflow may have taken from a factor is multiplied by the weight, and what it may take from a product is not.
    """
    dtype = gradient.size.dtype
    for m in maps:
        few = gradient.size.numel() <= _FEW
        apart = m.apart if few and isinstance(m, Dense) else None
        ends, terms, size, sides = _by_absolute_values(m, gradient) if apart is None else _by_signs(apart, gradient)
        ends = ends.add(_covered(terms, sides), alpha=allowance(m.fan_out + SPARE, dtype))
        # A sum of terms of one sign has that sign, whatever rounding may do to its size.
        # Interpolation with 0 or 1 selects several times as fast as where() does with mixed masks.
        yield Reach(torch.lerp(ends.clamp(max=0), ends, sides), size, sides).decided()


class _Image(NamedTuple):
    """What a map makes of a gradient: the ends as they are computed and the new ``sides``, (2, batch, rows, size); the
    sum of the absolute values of their terms (with what covers underflow in factors) and the new ``size``, (batch,
    rows, size)."""

    ends: Tensor
    terms: Tensor
    size: Tensor
    sides: Tensor


def _by_signs(apart: Tensor, gradient: Reach) -> _Image:
    """All in one product with the entries of either sign ``apart``; what multiplies a zero adds nothing to a sum."""
    ends, size, sides = gradient
    both = torch.stack([ends.amax(0), size]).add_(_either(sides), alpha=floor(size.dtype))
    of_positive = torch.cat([ends, both, sides])
    of_negative = of_positive.index_select(0, _swapped(size.device))
    ends, both, sides = (torch.cat([of_positive, of_negative], -1) @ apart).split_with_sizes((2, 2, 2))
    terms, size = both.unbind()
    return _Image(ends, terms, size, sides.sign())


@functools.cache
def _swapped(device: torch.device) -> Tensor:
    """What takes the ends, and the sides, for each other, between which there are two more."""
    return torch.tensor([1, 0, 2, 3, 5, 4], device=device)


def _by_absolute_values(m: LinearMap, gradient: Reach) -> _Image:
    """By middle and radius, for maps where a product with the entries of either sign is not cheap."""
    down, up = gradient.ends.unbind()
    absolute = up.new_empty(3, *up.shape)  # no copies: these are large
    lost = _either(gradient.sides).mul_(floor(up.dtype))
    torch.add(down, up, out=absolute[0])
    torch.maximum(down, up, out=absolute[1]).add_(lost)
    torch.add(gradient.size, lost, out=absolute[2])
    width, terms, size = m.absolute.adjoint(absolute)
    twice = m.adjoint(up - down)
    ends = up.new_empty(2, *twice.shape)
    torch.sub(width, twice, out=ends[0])
    torch.add(width, twice, out=ends[1])
    return _Image(ends.mul_(0.5), terms, size, m.adjoint_signs(gradient.sides))


def sum_of(first: Reach, second: Reach) -> Reach:
    """The sums of two values."""
    return Reach(*(a + b for a, b in zip(first, second, strict=True)))
