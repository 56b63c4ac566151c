"""Linear bound propagation on the chain rule: the paper's bound, and RecurJac as a looser choice of lines.

A gradient ``J`` at an activation's output passes its gate as ``u = a J``, ``a`` in ``[lo, hi]``. Over an interval of
``J`` this product lies between two lines, and a linear functional of any gradient is bounded by pushing its weights
through the network, from the node it belongs to towards the output, replacing each gate by one of its lines (arXiv
2210.07394, section 3). The intervals come from the same recursion, from the output side. Where a node's gradient does
not depend on any undecided gate it is a known constant and the recursion ends there.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lipcompare.budget import Copies, Deadline, chunk_size, tensor_bytes
from lipcompare.gates import Gates
from lipcompare.jacobian.interval import Reach, at_output, nothing, sum_of, through_gate, through_maps
from lipcompare.jacobian.lines import GateLines, LineRule, chords, dot, gate_planes
from lipcompare.jacobian.norms import absolute_chord, interval_norm, square_chord
from lipcompare.jacobian.patches import Relaxed, bounded_entries, plan
from lipcompare.jacobian.smooth import Forward
from lipcompare.network.activations import Lines
from lipcompare.network.graph import (
    Activate,
    Affine,
    Network,
    Terms,
    fold_backward,
    fold_forward,
    linear_value,
)
from lipcompare.network.interval import Interval, end_functionals
from lipcompare.network.linear_maps import LinearMap
from lipcompare.problem import Norm
from lipcompare.rounding import allowance, power_of_two, raised, scaled, total_above, underflow, unit_roundoff


@dataclasses.dataclass(frozen=True, eq=False)
class Gradients:
    """What the recursion knows about gradients, all of shape (batch, rows, size).

    Attributes:
        intervals: gradient with respect to the value of each activation node and of the input (node 0).
        lines: relaxation of each activation's gate over that interval.
        constant: activation nodes whose gradient depends on no undecided gate.
        scales: what the rounding of functionals of each of these gradients is measured by: the sums of the absolute
            values of all terms (:class:`~lipcompare.jacobian.interval.Reach`).
        joint: planes around the gates of smooth activations, where they are used, instead of lines.
    """

    intervals: Mapping[int, Interval]
    lines: Mapping[int, GateLines]
    constant: frozenset[int]
    scales: Mapping[int, Tensor]
    joint: Mapping[int, GateLines] = dataclasses.field(default_factory=dict)

    def of(self, examples: Tensor) -> Gradients:
        """The intervals alone, of some examples (some,)."""
        intervals = {k: Interval(s.lower[examples], s.upper[examples]) for k, s in self.intervals.items()}
        return Gradients(intervals, {}, self.constant, {k: v[examples] for k, v in self.scales.items()})

    def part(self, examples: slice) -> Gradients:
        """Everything of some examples."""

        def of(value: Tensor) -> Tensor:
            return value[examples] if value.shape[0] > 1 else value

        intervals = {k: Interval(of(v.lower), of(v.upper)) for k, v in self.intervals.items()}
        lines, joint = ({k: line.each(of) for k, line in all_.items()} for all_ in (self.lines, self.joint))
        return Gradients(intervals, lines, self.constant, {k: of(v) for k, v in self.scales.items()}, joint)

    def double(self) -> Gradients:
        """Intervals and lines in float64.

        A gradient that depends on no undecided gate is known no better than it was: passes go on to the output, since
        the rounding that they allow for is that of float64.
        """
        intervals = {k: Interval(s.lower.double(), s.upper.double()) for k, s in self.intervals.items()}
        lines = {k: line.each(Tensor.double) for k, line in self.lines.items()}
        known = self.intervals[0].lower.dtype is torch.float64
        constant = self.constant if known else frozenset[int]()
        return Gradients(intervals, lines, constant, {k: v.double() for k, v in self.scales.items()})


def gradient_intervals(
    network: Network,
    gates: Gates,
    functionals: Tensor,
    rule: LineRule = chords,
    *,
    norm: Norm | None = Norm.INF,
    forward: Forward | None = None,
    within: Mapping[int, Interval] | None = None,
    touched: Mapping[int, Tensor] | None = None,
    memory: int = 2**30,
    deadline: Deadline | None = None,
) -> Gradients:
    """Intervals of the gradient at every activation and at the input, each by the recursion over the later ones.

    Where a gate is decided, or one step of interval arithmetic from the later nodes already decides the sign of its
    gradient, the lines are exact whatever the interval; such entries keep the interval of that step. The same goes for
    signs at the input when the norm is the sum of absolute values (p = inf).

    Args:
        functionals: (batch, rows, outputs).
        rule: the lines around a gate.
        norm: what the input's gradient is for; None leaves it at one step of interval arithmetic.
        forward: bounds on functionals of pre-activations. With it, gates that carry lines of their slope are also
            relaxed jointly, and every bound is the better of the two.
        within: intervals that are known already, (batch, rows, size) per activation and for the input.
        touched: positive for entries (batch, size) of each of these that are bounded; the others stay ``within``.
        memory: bytes that one pass may take; targets are chunked to respect it.
        deadline: when it has passed, entries that were not bounded yet keep the interval of one step.
    """
    deadline = deadline or Deadline()
    intervals: dict[int, Interval] = {}
    lines: dict[int, GateLines] = {}
    joint: dict[int, GateLines] = {}
    scales: dict[int, Tensor] = {}
    constant = without_undecided_gates(network, gates)
    known = Gradients(intervals=intervals, lines=lines, constant=constant, scales=scales, joint=joint)
    batch = functionals.shape[0]

    def arrived(k: int, step: Reach) -> Reach:
        step = step.of_all(batch)
        scales[k] = step.scale
        return step if within is None else step.within(step.interval.intersect(within[k]))

    def refined(k: int, step: Interval, wanted: Tensor) -> Interval:
        if touched is not None:
            wanted = wanted & (touched[k] > 0).unsqueeze(1)
        return _refined(
            network, gates, functionals, known, k, step, wanted, forward=forward, memory=memory, deadline=deadline
        )

    def activation(k: int, node: Activate, step: Reach) -> Reach:
        """Refines the interval of the step that was taken to the node, and relaxes its gate over it."""
        step = arrived(k, step)
        if k in constant:
            value = _constant_gradient(network, gates, functionals, k)
            share = allowance(network.operations, value.dtype)
            intervals[k] = Interval(value.sub(scales[k], alpha=share), value.add(scales[k], alpha=share))
        else:
            open_, entries = gates.unstable(k).unsqueeze(1), step.interval
            wanted = open_ & _mixed(entries) if forward is None else open_.expand_as(entries.lower)
            intervals[k] = refined(k, entries, wanted)
        slope = Interval(*(v.unsqueeze(1) for v in gates.slopes[k]))
        line = rule(intervals[k], slope)
        size = line.size(scales[k])
        lines[k] = line._replace(terms=_total(scales[k], size))
        if forward is not None and k in gates.lines:
            steep = Lines(*(v.unsqueeze(1) for v in gates.lines[k]))
            reached = forward.scales[k].unsqueeze(1)
            joint[k] = gate_planes(intervals[k], slope, steep, reached)
            size = torch.maximum(size, joint[k].size(scales[k], reached))
        step = step.within(intervals[k])
        if all(isinstance(network.nodes[reader], Affine) for reader in network.consumers[k]):
            step = step.decided()
        return through_gate(node.activation, gates.slopes[k], step, size)

    last = len(network.nodes) - 1
    start = fold_backward(network, {last: at_output(functionals)}, activation, through_maps, add=sum_of)
    entries = arrived(0, nothing(network, functionals) if start is None else start).interval
    if norm is not None:
        wanted = _mixed(entries) if norm is Norm.INF else torch.ones_like(entries.lower, dtype=torch.bool)
        entries = refined(0, entries, wanted)
    intervals[0] = entries
    return known


def _mixed(gradient: Interval) -> Tensor:
    """Entries of either sign."""
    return (gradient.lower < 0) & (gradient.upper > 0)


def norm_bound(
    network: Network,
    gates: Gates,
    functionals: Tensor,
    gradients: Gradients,
    norm: Norm,
    forward: Forward | None = None,
) -> Tensor:
    """Upper bound (batch, rows) on the dual norm of the input gradient.

    p = inf: each ``|J_j|`` is replaced by its chord and the sum is bounded by one more pass (the paper). p = 2: so too
    with the chord of ``J_j^2``, and the square root at the end. p = 1: the largest ``|J_j|`` is bounded entry by
    entry, where the intervals are already the best that these lines give.
    """
    entries = gradients.intervals[0]
    box = interval_norm(entries, norm)
    if norm is Norm.ONE:
        return box
    chord = absolute_chord
    if norm is Norm.TWO:
        # The square of an entry may be out of range where the entry is not.
        exponent = power_of_two(entries.magnitude.amax(-1, keepdim=True))
        entries, chord = Interval(*(scaled(end, -exponent) for end in entries)), square_chord
    slope, intercept = chord(entries)
    pushed = functional_bound(network, gates, functionals, gradients, 0, slope.unsqueeze(2), forward).squeeze(2)
    if norm is Norm.TWO:
        pushed = scaled(pushed, -exponent.squeeze(-1))
    constant = total_above(intercept)
    bound = (pushed + constant).clamp(min=0)
    bound = bound.add(pushed.abs() + constant.abs(), alpha=2 * unit_roundoff(bound.dtype))
    if norm is Norm.TWO:
        bound = scaled(raised(bound.sqrt(), 1), exponent.squeeze(-1))
    # Slopes without a bound (an exponential far out) multiply zeros.
    return torch.minimum(bound, box).nan_to_num(nan=torch.inf, posinf=torch.inf)


def functional_bound(
    network: Network,
    gates: Gates,
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
    bound = push_forward(network, gates, functionals, gradients, source, weights)
    if forward is not None and any(k > source for k in gradients.joint):
        joint = push_forward(network, gates, functionals, gradients, source, weights, forward)
        bound = torch.minimum(bound, joint)
    size = dot(weights.abs(), gradients.scales[source]) + _underflow(network, gradients, source, forward)
    return bound.add(size, alpha=allowance(2 * network.operations, bound.dtype))


def entry_bounds(
    network: Network,
    gates: Gates,
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
        bound = functional_bound(network, gates, functionals, gradients, source, weights, forward)
        high, low = bound.tensor_split(2, -1)
        return Interval(-low, high)
    lower, upper = push_ends(network, functionals, gradients, source, entries)
    size = gradients.scales[source].index_select(-1, entries) + _underflow(network, gradients, source)
    share = allowance(2 * network.operations, size.dtype)
    return Interval(lower.sub(size, alpha=share), upper.add(size, alpha=share))


def _underflow(network: Network, gradients: Gradients, source: int, forward: Forward | None = None) -> Tensor:
    """What covers underflow in passes from one node to the output, (batch, rows, 1).

    A weight that has become small on the way may meet a gradient far larger than the functional.
    """
    total = gradients.scales[source].new_ones(())
    for k, line in gradients.lines.items():
        if k <= source:
            continue
        scale = gradients.scales[k]
        total = total + (_total(scale, line.size(scale)) if line.terms is None else line.terms)
        if forward is not None and k in gradients.joint:
            reached = forward.scales[k].unsqueeze(1)
            total = total + _total(gradients.joint[k].size(scale, reached), reached)
    if forward is not None:
        total = total + len(network.nodes) * forward.largest.unsqueeze(1)
    return underflow(total.nan_to_num(nan=torch.inf, posinf=torch.inf))


def _total(first: Tensor, second: Tensor) -> Tensor:
    """The sum of all entries of two vectors (batch, rows, size), (batch, rows, 1)."""
    return (first + second).sum(-1, keepdim=True)


def push_forward(
    network: Network,
    gates: Gates,
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
    odd: list[Tensor] = []
    even: list[Tensor] = []
    joined: list[Tensor] = []

    def mapped(m: LinearMap, weights: _Ends | Tensor) -> _Ends | Tensor:
        if isinstance(weights, Tensor):
            return m.forward(weights)
        first = m.columns(entries, functionals) if weights.odd is None else m.forward(weights.odd)
        return _Ends(first, None if weights.even is None else m.forward(weights.even))

    def affine(k: int, node: Affine, terms: Terms[_Ends | Tensor]) -> _Ends | Tensor:
        return functools.reduce(_sum_of_ends, (mapped(m, weights) for m, weights in terms))

    def activation(k: int, node: Activate, weights: _Ends | Tensor) -> _Ends | Tensor | None:
        line, ends_here = gradients.lines[k], k in gradients.constant
        value = gradients.intervals[k].center if ends_here else None
        if isinstance(weights, _Ends) and weights.odd is None:
            units = functionals.new_zeros(len(entries), node.size).scatter_(1, entries.unsqueeze(-1), 1.0)
            weights = _Ends(units)
        if isinstance(weights, _Ends) and (ends_here or weights.even is None):
            assert weights.odd is not None
            middle, spread = line.offsets(value)
            if middle is not None:
                odd.append(dot(weights.odd, middle))
            if weights.even is None:
                size = weights.odd.abs()
                even.append(dot(size, spread))
                if not ends_here:
                    return _Ends(weights.odd * line.slope.unsqueeze(2), size * line.slope_spread.unsqueeze(2))
                return None
            if middle is not None:
                even.append(dot(weights.even, middle))
            joined.append(dot(weights.joined().abs_(), spread))
            return None
        tangent = weights.joined() if isinstance(weights, _Ends) else weights
        size = tangent.abs()
        joined.append(line.bound(tangent, size, value))
        if ends_here:
            return None
        return (size * line.slope_spread.unsqueeze(2)).addcmul_(tangent, line.slope.unsqueeze(2))

    start: dict[int, _Ends | Tensor] = {source: _Ends(None)}
    arrived = fold_forward(network, start, activation, affine)
    if isinstance(arrived, Tensor):
        joined.append(dot(arrived, functionals))
    elif arrived is not None:
        assert arrived.odd is not None
        odd.append(dot(arrived.odd, functionals))
        if arrived.even is not None:
            even.append(dot(arrived.even, functionals))
    if not odd:
        odd.append(functionals.new_zeros(*functionals.shape[:2], len(entries)))
    lower = upper = functools.reduce(operator.add, odd)
    if even:
        radius = functools.reduce(operator.add, even)
        lower, upper = lower - radius, upper + radius
    if joined:
        high, low = functools.reduce(operator.add, joined).tensor_split(2, -1)
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


def _refined(
    network: Network,
    gates: Gates,
    functionals: Tensor,
    gradients: Gradients,
    node: int,
    start: Interval,
    wanted: Tensor,
    *,
    forward: Forward | None,
    memory: int,
    deadline: Deadline,
) -> Interval:
    """Interval of one node's gradient: entries ``wanted`` in any example or row by the recursion, the others as given.

    Args:
        gradients: lines of every activation node after ``node``.
        start: what is known of the interval.
        wanted: mask (batch, rows, size).
    """
    targets = wanted.flatten(0, 1).any(0).nonzero().squeeze(-1)
    if not len(targets) or deadline.passed():
        return start
    how = plan(network, node) if forward is None else None
    if how is not None:
        relaxed = {k: _relaxed(line, gradients, k) for k, line in gradients.lines.items()}
        raw = bounded_entries(network, functionals, relaxed, node, start, wanted, how, memory=memory, deadline=deadline)
        # As for a functional that is one entry.
        terms = gradients.scales[node] + _underflow(network, gradients, node)
        rounding = allowance(2 * network.operations, functionals.dtype) * terms
        lower = torch.maximum(raw.lower - rounding, start.lower)
        upper = torch.minimum(raw.upper + rounding, start.upper)
        return Interval(lower, torch.maximum(lower, upper)).select(wanted, start)
    batch, rows, size = start.lower.shape
    widest = max(n.size for n in network.nodes[node:])
    chunk = chunk_size(memory, functionals.device, tensor_bytes(Copies.TANGENT, 2 * batch * rows * widest, functionals))
    found: list[Interval] = []
    for entries in targets.split(chunk):
        if deadline.passed():
            break
        found.append(entry_bounds(network, gates, functionals, gradients, node, entries, forward))
    if not found:
        return start
    lower, upper = found[0] if len(found) == 1 else (torch.cat(ends, -1) for ends in zip(*found, strict=True))
    done = lower.shape[-1]
    if done < size:
        lower, upper = (old.index_copy(-1, targets[:done], new) for old, new in zip(start, (lower, upper), strict=True))
    # What one step says can only be tighter where planes are used, or by the rounding; its signs are exact.
    upper, lower = torch.minimum(upper, start.upper), torch.maximum(lower, start.lower)
    # Examples and rows for which an entry was not wanted keep theirs: a result must not depend on its batch.
    return Interval(lower, torch.maximum(lower, upper)).select(wanted, start)


def _relaxed(line: GateLines, gradients: Gradients, k: int) -> Relaxed:
    """The lines of one activation as the passes on patches take them."""
    value = gradients.intervals[k].center if k in gradients.constant else None
    return Relaxed(line.slope, line.slope_spread, line.offset, line.offset_spread, value)


def without_undecided_gates(network: Network, gates: Gates) -> frozenset[int]:
    """Activation nodes from whose output no path to the network's output meets an undecided gate."""
    nodes: set[int] = set()

    def activation(k: int, node: Activate, clear: bool) -> bool:
        if clear:
            nodes.add(k)
        return clear and not bool(gates.unstable(k).any())

    def affine(k: int, node: Affine, maps: Sequence[LinearMap], clear: bool) -> Iterable[bool]:
        return (clear for _ in maps)

    fold_backward(network, {len(network.nodes) - 1: True}, activation, affine, add=operator.and_)
    return frozenset(nodes)


def _constant_gradient(network: Network, gates: Gates, functionals: Tensor, node: int) -> Tensor:
    """Gradient (batch, rows, size) at a node that no undecided gate separates from the output."""
    slopes = {k: slope.lower.unsqueeze(1) for k, slope in gates.slopes.items()}
    return network.pull_back(slopes, functionals, stop=node)
