"""Passes of weights from the gradient at a node towards the output, through the lines around the gates.

What arrives at the output meets the functionals there, and what the lines leave on the way adds up to a bound (arXiv
2210.07394, section 3). Entries of a gradient and their negatives go together.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from typing import NamedTuple

import torch
from torch import Tensor

from lipcompare.jacobian.gradients import Gradients
from lipcompare.jacobian.lines import GateLines, dot, total
from lipcompare.jacobian.smooth import Forward
from lipcompare.network.graph import Activate, Affine, Network, Terms, fold_forward, linear_value
from lipcompare.network.interval import Interval, end_functionals
from lipcompare.network.linear_maps import LinearMap
from lipcompare.rounding import allowance, underflow


def functional_bound(
    network: Network,
    functionals: Tensor,
    gradients: Gradients,
    source: int,
    weights: Tensor,
    forward: Forward | None = None,
) -> Tensor:
    """:func:`push_forward` with the gates' lines and, given ``forward``, also with their planes: the better one.

    Rounded upward: all terms of the bound, without their signs, add up to no more than ``|weights|`` times the node's
    scale; twice the operations of a pass take them back to the output and, with planes, on to the input. What underflow
    takes from a weight on the way is multiplied by the gradient there (:func:`_underflow`).
    """
    bound = push_forward(network, functionals, gradients, source, weights)
    if forward is not None and any(k > source for k in gradients.joint):
        joint = push_forward(network, functionals, gradients, source, weights, forward)
        bound = torch.minimum(bound, joint)
    size = dot(weights.abs(), gradients.scales[source]) + underflow_of_passes(network, gradients, source, forward)
    return bound.add(size, alpha=allowance(2 * network.operations, bound.dtype))


def entry_bounds(
    network: Network,
    functionals: Tensor,
    gradients: Gradients,
    source: int,
    entries: Tensor,
    forward: Forward | None = None,
) -> Interval:
    """Intervals (batch, rows, some) of some ``entries`` (some,) of the gradient at one node: what
    :func:`functional_bound` says of them and of their negatives."""
    if forward is not None and any(k > source for k in gradients.joint):
        weights = end_functionals(entries, network.nodes[source].size, functionals)
        bound = functional_bound(network, functionals, gradients, source, weights, forward)
        high, low = bound.tensor_split(2, -1)
        return Interval(-low, high)
    lower, upper = push_ends(network, functionals, gradients, source, entries)
    size = gradients.scales[source].index_select(-1, entries) + underflow_of_passes(network, gradients, source)
    share = allowance(2 * network.operations, size.dtype)
    return Interval(lower.sub(size, alpha=share), upper.add(size, alpha=share))


def underflow_of_passes(network: Network, gradients: Gradients, source: int, forward: Forward | None = None) -> Tensor:
    """What covers underflow in passes from one node to the output, (batch, rows, 1).

    A weight that has become small on the way may meet a gradient far larger than the functional.
    """
    size = gradients.scales[source].new_ones(())
    for k, line in gradients.lines.items():
        if k <= source:
            continue
        scale = gradients.scales[k]
        size = size + (total(scale, line.size(scale)) if line.terms is None else line.terms)
        if forward is not None and k in gradients.joint:
            reached = forward.scales[k].unsqueeze(1)
            size = size + total(gradients.joint[k].size(scale, reached), reached)
    if forward is not None:
        size = size + len(network.nodes) * forward.largest.unsqueeze(1)
    return underflow(size.nan_to_num(nan=torch.inf, posinf=torch.inf))


def push_forward(
    network: Network,
    functionals: Tensor,
    gradients: Gradients,
    source: int,
    weights: Tensor,
    forward: Forward | None = None,
) -> Tensor:
    """Upper bounds on linear functionals of the gradient at one node.

    Args:
        gradients: lines of every activation node after ``source``.
        weights: functionals on the gradient of node ``source``: (targets, size) or (batch, rows, targets, size).
        forward: bounds what is left on pre-activations where gates have planes; without it only lines are used.

    Returns:
        Tensor (batch, rows, targets).
    """
    relaxed = gradients.lines if forward is None else {**gradients.lines, **gradients.joint}
    leftover: dict[int, Tensor] = {}
    constant = functionals.new_zeros(())

    def activation(k: int, node: Activate, tangent: Tensor) -> Tensor | None:
        nonlocal constant
        line, size = relaxed[k], tangent.abs()
        if line.forward is not None and line.forward_spread is not None:
            leftover[k] = tangent * line.forward.unsqueeze(2) + size * line.forward_spread.unsqueeze(2)
        if k in gradients.constant:
            constant = constant + line.bound(tangent, size, gradients.intervals[k].center)
            return None
        constant = constant + line.bound(tangent, size)
        return (size * line.slope_spread.unsqueeze(2)).addcmul_(tangent, line.slope.unsqueeze(2))

    def affine(k: int, node: Affine, terms: Terms[Tensor]) -> Tensor:
        return linear_value(terms)

    arrived = fold_forward(network, {source: weights}, activation, affine)
    if arrived is not None:
        constant = constant + dot(arrived, functionals)
    if leftover:
        assert forward is not None
        constant = constant + forward(leftover)
    return constant.expand(*functionals.shape[:2], weights.shape[-2])


class _Ends(NamedTuple):
    """Weights ``even + odd`` and ``even - odd`` that bound an entry of a gradient and its negative, on their way.

    Until a gate lets the sign matter they are one of them with either sign, and behind the first gate they still share
    what they are made of, so that a map does half of the work of both.

    Attributes:
        odd: (targets, size) or (batch, rows or 1, targets, size); None for the entries themselves.
        even: (batch, rows, targets, size); None for 0.
    """

    odd: Tensor | None
    even: Tensor | None = None

    def joined(self) -> Tensor:
        """All weights, of the entries and then of their negatives: (..., 2 targets, size)."""
        assert self.odd is not None
        if self.even is None:
            return torch.cat([self.odd, -self.odd], -2)
        targets, size = self.even.shape[-2:]
        both = self.even.new_empty(*self.even.shape[:-2], 2 * targets, size)
        torch.add(self.even, self.odd, out=both[..., :targets, :])
        torch.sub(self.even, self.odd, out=both[..., targets:, :])
        return both


def push_ends(network: Network, functionals: Tensor, gradients: Gradients, source: int, entries: Tensor) -> Interval:
    """Intervals (batch, rows, some) of ``entries`` (some,) of the gradient at one node, but for rounding.

    The bounds that :func:`push_forward` gives for these entries and for their negatives with the gates' lines.
    """
    walk = _EndsWalk(functionals=functionals, gradients=gradients, entries=entries)
    start: dict[int, _Ends | Tensor] = {source: _Ends(None)}
    walk.at_output(fold_forward(network, start, walk.through_gates, walk.through_maps))
    return walk.interval()


@dataclasses.dataclass(frozen=True, eq=False)
class _EndsWalk:
    """The walk of both weights to the output, and what they meet on the way.

    Attributes:
        functionals: (batch, rows, outputs).
        entries: (some,) of the gradient.
        odd, even: terms (batch, rows, some) of half the difference and of half the sum of both bounds.
        joined: terms (batch, rows, 2 some) of the bounds on the entries and then on their negatives.
    """

    functionals: Tensor
    gradients: Gradients
    entries: Tensor
    odd: list[Tensor] = dataclasses.field(default_factory=list)
    even: list[Tensor] = dataclasses.field(default_factory=list)
    joined: list[Tensor] = dataclasses.field(default_factory=list)

    def through_maps(self, k: int, node: Affine, terms: Terms[_Ends | Tensor]) -> _Ends | Tensor:
        return functools.reduce(_sum_of_ends, (self._mapped(m, weights) for m, weights in terms))

    def _mapped(self, m: LinearMap, weights: _Ends | Tensor) -> _Ends | Tensor:
        if isinstance(weights, Tensor):
            return m.forward(weights)
        first = m.columns(self.entries, self.functionals) if weights.odd is None else m.forward(weights.odd)
        return _Ends(first, None if weights.even is None else m.forward(weights.even))

    def through_gates(self, k: int, node: Activate, weights: _Ends | Tensor) -> _Ends | Tensor | None:
        line, last = self.gradients.lines[k], k in self.gradients.constant
        value = self.gradients.intervals[k].center if last else None
        if isinstance(weights, _Ends) and weights.odd is None:
            count = len(self.entries)
            units = self.functionals.new_zeros(count, node.size).scatter_(1, self.entries.unsqueeze(-1), 1.0)
            weights = _Ends(units)
        if isinstance(weights, _Ends) and (last or weights.even is None):
            return self._together(weights, line, value)
        tangent = weights.joined() if isinstance(weights, _Ends) else weights
        size = tangent.abs()
        self.joined.append(line.bound(tangent, size, value))
        return None if last else (size * line.slope_spread.unsqueeze(2)).addcmul_(tangent, line.slope.unsqueeze(2))

    def _together(self, weights: _Ends, line: GateLines, value: Tensor | None) -> _Ends | None:
        """Through the first gates, where both weights have one size, and into those that have a ``value``, which are
        the last."""
        assert weights.odd is not None
        middle, spread = line.offsets(value)
        if middle is not None:
            self.odd.append(dot(weights.odd, middle))
        if weights.even is None:
            size = weights.odd.abs()
            self.even.append(dot(size, spread))
            if value is not None:
                return None
            return _Ends(weights.odd * line.slope.unsqueeze(2), size * line.slope_spread.unsqueeze(2))
        if middle is not None:
            self.even.append(dot(weights.even, middle))
        self.joined.append(dot(weights.joined().abs_(), spread))
        return None

    def at_output(self, arrived: _Ends | Tensor | None) -> None:
        """What is left meets the functionals."""
        if isinstance(arrived, Tensor):
            self.joined.append(dot(arrived, self.functionals))
        elif arrived is not None:
            assert arrived.odd is not None
            self.odd.append(dot(arrived.odd, self.functionals))
            if arrived.even is not None:
                self.even.append(dot(arrived.even, self.functionals))

    def interval(self) -> Interval:
        """All terms together."""
        none = self.functionals.new_zeros(*self.functionals.shape[:2], len(self.entries))
        lower = upper = functools.reduce(operator.add, self.odd or [none])
        if self.even:
            radius = functools.reduce(operator.add, self.even)
            lower, upper = lower - radius, upper + radius
        if self.joined:
            high, low = functools.reduce(operator.add, self.joined).tensor_split(2, -1)
            lower, upper = lower - low, upper + high
        return Interval(lower, upper)


def _sum_of_ends(first: _Ends | Tensor, second: _Ends | Tensor) -> _Ends | Tensor:
    """What two paths to a node bring there."""
    if isinstance(first, Tensor) or isinstance(second, Tensor):
        one, other = (v if isinstance(v, Tensor) else v.joined() for v in (first, second))
        return one + other
    assert first.odd is not None and second.odd is not None
    evens = [v.even for v in (first, second) if v.even is not None]
    return _Ends(first.odd + second.odd, functools.reduce(operator.add, evens) if evens else None)
