"""Linear bound propagation on the chain rule: the paper's bound, and RecurJac as a looser choice of lines.

A gradient ``J`` at an activation's output passes its gate as ``u = a J``, ``a`` in ``[lo, hi]``. Over an interval of
``J`` this product lies between two lines, and a linear functional of any gradient is bounded by pushing its weights
through the network, from the node it belongs to towards the output, replacing each gate by one of its lines (arXiv
2210.07394, section 3). The intervals come from the same recursion, from the output side. Where a node's gradient does
not depend on any undecided gate it is a known constant and the recursion ends there.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lipcompare.budget import Copies, Deadline, chunk_size, tensor_bytes
from lipcompare.gates import Gates
from lipcompare.jacobian.interval import Reach, at_output, nothing, sum_of, through_gate, through_maps
from lipcompare.jacobian.norms import absolute_chord, interval_norm, square_chord
from lipcompare.jacobian.patches import Relaxed, bounded_entries, plan
from lipcompare.jacobian.smooth import Forward, Plane, Shares, planes
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
from lipcompare.rounding import allowance, floor, power_of_two, raised, scaled, total_above, unit_roundoff


class GateLines(NamedTuple):
    """Two lines ``(slope -+ slope_spread) J + offset -+ offset_spread`` around a gate: middle and half difference.

    In this form a functional with weight ``t`` is bounded by ``t`` times the middle plus ``|t|`` times the spread, with
    no split by sign. The middle offset of the convex hull is zero and then not stored. The planes around a smooth gate
    also have a slope in its pre-activation (None for lines).
    """

    slope: Tensor
    slope_spread: Tensor
    offset: Tensor | None
    offset_spread: Tensor
    forward: Tensor | None = None
    forward_spread: Tensor | None = None

    def size(self, gradient: Tensor, preactivation: Tensor | None = None) -> Tensor:
        """Sum of the absolute values of the terms of either line, for those of the gradient and the pre-activation."""
        total = (self.slope.abs() + self.slope_spread.abs()) * gradient + self.offset_spread.abs()
        if self.offset is not None:
            total = total + self.offset.abs()
        if self.forward is not None and self.forward_spread is not None:
            assert preactivation is not None
            total = total + (self.forward.abs() + self.forward_spread.abs()) * preactivation
        return total

    def bound(self, weights: Tensor, size: Tensor, value: Tensor | None = None) -> Tensor:
        """The constant part of the upper bound for ``weights`` (``size`` is their absolute value); with the gradient's
        ``value`` known, all of it."""
        middle, spread = self.offset, self.offset_spread
        if value is not None:
            middle = value * self.slope if middle is None else value * self.slope + middle
            spread = value * self.slope_spread + spread
        bound = _dot(size, spread)
        return bound if middle is None else bound + _dot(weights, middle)


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

        def lines(all_: Mapping[int, GateLines]) -> dict[int, GateLines]:
            return {
                k: line._replace(**{name: of(v) for name, v in line._asdict().items() if v is not None})
                for k, line in all_.items()
            }

        intervals = {k: Interval(of(v.lower), of(v.upper)) for k, v in self.intervals.items()}
        scales = {k: of(scale) for k, scale in self.scales.items()}
        return Gradients(intervals, lines(self.lines), self.constant, scales, lines(self.joint))

    def double(self) -> Gradients:
        """Intervals and lines in float64.

        A gradient that depends on no undecided gate is known no better than it was: passes go on to the output, since
        the rounding that they allow for is that of float64.
        """
        intervals = {k: Interval(s.lower.double(), s.upper.double()) for k, s in self.intervals.items()}
        lines = {
            k: GateLines(
                slope=line.slope.double(),
                slope_spread=line.slope_spread.double(),
                offset=None if line.offset is None else line.offset.double(),
                offset_spread=line.offset_spread.double(),
            )
            for k, line in self.lines.items()
        }
        known = self.intervals[0].lower.dtype is torch.float64
        constant = self.constant if known else frozenset[int]()
        return Gradients(intervals, lines, constant, {k: v.double() for k, v in self.scales.items()})


LineRule = Callable[[Interval, Interval], GateLines]
"""Lines around ``u = a J`` from the ranges of ``J`` and of ``a``; they hold with their stored coefficients."""


def chords(gradient: Interval, slope: Interval) -> GateLines:
    """The convex hull of ``a J`` for ``J`` in ``gradient`` and ``a`` in ``slope``: the paper. The fields broadcast.

    The coefficients are off by at most 4 (middle) and 12 (spread) roundoffs times the steepest slope, the offsets by
    as much times the largest gradient, so the offsets cover 32 times the width of its interval with 0. Where the gate
    is decided its line is exact.
    """
    (lo, hi), below, above = slope, gradient.lower.clamp(max=0), gradient.upper.clamp(min=0)
    range_, width = hi - lo, above - below
    # Above, through (below, lo below) and (above, hi above); below, through the two other corners.
    reach = range_ * (above / width).nan_to_num_(nan=1.0)
    error = 32 * unit_roundoff(range_.dtype) * slope.magnitude * (range_ > 0)
    return GateLines(
        slope=((hi + lo) / 2).expand_as(reach),
        slope_spread=reach - range_ / 2,
        offset=None,
        offset_spread=error * width - reach * below,
    )


def constants(gradient: Interval, slope: Interval) -> GateLines:
    """The interval of ``a J`` where both the gate and the sign of ``J`` are undecided, exact lines elsewhere (RecurJac,
    Zhang et al. 2019, arXiv 1810.11783). The fields broadcast; what is said of rounding in :func:`chords` holds."""
    (lo, hi), below, above = slope, gradient.lower.clamp(max=0), gradient.upper.clamp(min=0)
    hull = chords(gradient, slope)
    flat = (below < 0) & (above > 0) & (hi > lo)
    highest = torch.maximum(hi * above, lo * below)
    lowest = torch.minimum(hi * below, lo * above)
    # The hull's offset is its error alone where the gradient's sign is decided.
    error = 32 * unit_roundoff(below.dtype) * slope.magnitude * (above - below)
    return GateLines(
        slope=hull.slope.masked_fill(flat, 0.0),
        slope_spread=hull.slope_spread.masked_fill(flat, 0.0),
        offset=((highest + lowest) / 2).masked_fill(~flat, 0.0),
        offset_spread=torch.where(flat, (highest - lowest) / 2 + error, hull.offset_spread),
    )


def gate_planes(
    gradient: Interval, slope: Interval, lines: Lines, preactivation: Tensor, shares: Shares = Shares()
) -> GateLines:
    """Planes around ``s(z) J`` by middle and half difference; the fields broadcast.

    They hold with their stored coefficients: each is a sum of at most four products, so that all of a plane's terms
    together are off by at most 32 roundoffs times their absolute values.

    Args:
        preactivation: largest absolute value of ``z``.
    """
    below, above = planes(gradient, slope, lines, shares)
    middle = Plane(*((a + b) / 2 for a, b in zip(above, below, strict=True)))
    spread = Plane(*((a - b) / 2 for a, b in zip(above, below, strict=True)))
    steep = torch.maximum(lines.lower_slope.abs(), lines.upper_slope.abs()) * preactivation
    steep = steep + torch.maximum(lines.lower_intercept.abs(), lines.upper_intercept.abs()) + 2 * slope.magnitude
    error = 32 * unit_roundoff(steep.dtype) * gradient.magnitude * steep
    return GateLines(
        slope=middle.gradient,
        slope_spread=spread.gradient,
        offset=middle.constant,
        offset_spread=spread.constant + error,
        forward=middle.preactivation,
        forward_spread=spread.preactivation,
    )


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
    constant: set[int] = set()
    fixed = without_undecided_gates(network, gates)
    batch = functionals.shape[0]

    def activation(k: int, node: Activate, step: Reach) -> Reach:
        """Refines the interval of the step that was taken to the node, and relaxes its gate over it."""
        step = step.of_all(batch)
        scales[k] = step.scale
        if within is not None:
            step = step._replace(interval=step.interval.intersect(within[k])).decided()
        if k in fixed:
            value = _constant_gradient(network, gates, functionals, k)
            error = allowance(network.operations, value.dtype) * step.scale
            intervals[k] = Interval(value - error, value + error)
            constant.add(k)
        else:
            wanted = gates.unstable(k).unsqueeze(1) & (_mixed(step.interval) | (forward is not None))
            if touched is not None:
                wanted = wanted & (touched[k] > 0).unsqueeze(1)
            gradients = Gradients(
                intervals=intervals, lines=lines, constant=frozenset(constant), scales=scales, joint=joint
            )
            intervals[k] = _refined(
                network, gates, functionals, gradients, k, step.interval, wanted,
                forward=forward, memory=memory, deadline=deadline,
            )  # fmt: skip
        slope = Interval(*(v.unsqueeze(1) for v in gates.slopes[k]))
        lines[k] = rule(intervals[k], slope)
        size = lines[k].size(step.size)
        if forward is not None and k in gates.lines:
            steep = Lines(*(v.unsqueeze(1) for v in gates.lines[k]))
            reached = forward.scales[k].unsqueeze(1)
            joint[k] = gate_planes(intervals[k], slope, steep, reached)
            size = torch.maximum(size, joint[k].size(step.size, reached))
        return through_gate(node.activation, gates.slopes[k], step._replace(interval=intervals[k]).decided(), size)

    last = len(network.nodes) - 1
    found = fold_backward(network, {last: at_output(functionals)}, activation, through_maps, add=sum_of)
    start = (nothing(network, functionals) if found is None else found).of_all(batch)
    if within is not None:
        start = start._replace(interval=start.interval.intersect(within[0]))
    scales[0] = start.scale
    gradients = Gradients(
        intervals={0: start.interval, **intervals},
        lines=lines,
        constant=frozenset(constant),
        scales=scales,
        joint=joint,
    )
    if norm is None:
        return gradients
    step = start.interval
    wanted = _mixed(step) if norm is Norm.INF else torch.ones_like(step.lower, dtype=torch.bool)
    if touched is not None:
        wanted = wanted & (touched[0] > 0).unsqueeze(1)
    entries = _refined(
        network, gates, functionals, gradients, 0, step, wanted, forward=forward, memory=memory, deadline=deadline
    )
    return dataclasses.replace(gradients, intervals={**gradients.intervals, 0: entries})


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
    bound = bound + 2 * unit_roundoff(bound.dtype) * (pushed.abs() + constant.abs())
    if norm is Norm.TWO:
        bound = scaled(raised(bound.sqrt(), 1), exponent.squeeze(-1))
    bound = torch.minimum(bound, box)
    # Slopes without a bound (an exponential far out) multiply zeros.
    return torch.where(bound.isnan(), torch.inf, bound)


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
    size = _dot(weights.abs(), gradients.scales[source]) + _underflow(network, gradients, source, forward)
    return bound + allowance(2 * network.operations, bound.dtype) * size


def _underflow(network: Network, gradients: Gradients, source: int, forward: Forward | None = None) -> Tensor:
    """What covers underflow in passes from one node to the output, (batch, rows, 1).

    A weight that has become small on the way may meet a gradient far larger than the functional.
    """
    total = gradients.scales[source].new_ones(())
    for k in gradients.lines:
        if k <= source:
            continue
        scale = gradients.scales[k]
        total = total + (scale + gradients.lines[k].size(scale)).sum(-1, keepdim=True)
        if forward is not None and k in gradients.joint:
            reached = forward.scales[k].unsqueeze(1)
            total = total + (gradients.joint[k].size(scale, reached) + reached).sum(-1, keepdim=True)
    if forward is not None:
        total = total + len(network.nodes) * forward.largest.unsqueeze(1)
    return floor(total.dtype) * total.nan_to_num(nan=torch.inf, posinf=torch.inf)


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
        result = tangent * line.slope.unsqueeze(2)
        return result.addcmul_(size, line.slope_spread.unsqueeze(2))

    def affine(k: int, node: Affine, terms: Terms[Tensor]) -> Tensor:
        return linear_value(terms)

    arrived = fold_forward(network, {source: weights}, activation, affine)
    if arrived is not None:
        constant = constant + _dot(arrived, functionals)
    if leftover:
        assert forward is not None
        constant = constant + forward(leftover)
    return constant.expand(*functionals.shape[:2], weights.shape[-2])


def _dot(weights: Tensor, vectors: Tensor) -> Tensor:
    """``weights`` (targets, n) or (batch, rows, targets, n) times ``vectors`` (batch, rows, n), without their n."""
    if weights.ndim == 2:
        return vectors @ weights.T
    return torch.matmul(weights, vectors.unsqueeze(-1)).squeeze(-1)


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
    if deadline.passed():
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
    lower, upper = start.lower.clone(), start.upper.clone()
    widest = max(n.size for n in network.nodes[node:])
    chunk = chunk_size(memory, functionals.device, tensor_bytes(Copies.TANGENT, 2 * batch * rows * widest, functionals))
    for entries in wanted.flatten(0, 1).any(0).nonzero().squeeze(-1).split(chunk):
        if deadline.passed():
            break
        weights = end_functionals(entries, size, functionals)
        bound = functional_bound(network, gates, functionals, gradients, node, weights, forward)
        high, low = bound.tensor_split(2, -1)
        upper.index_copy_(-1, entries, high)
        lower.index_copy_(-1, entries, -low)
    # What one step says can only be tighter where planes are used, or by the rounding; its signs are exact.
    upper, lower = torch.minimum(upper, start.upper), torch.maximum(lower, start.lower)
    # Examples and rows for which an entry was not wanted keep theirs: a result must not depend on its batch.
    return Interval(lower, torch.maximum(lower, upper)).select(wanted, start)


def _relaxed(line: GateLines, gradients: Gradients, k: int) -> Relaxed:
    """The lines of one activation as the passes on patches take them."""
    slope = line.slope[:, :1] if line.slope.stride(1) == 0 else line.slope
    value = gradients.intervals[k].center if k in gradients.constant else None
    return Relaxed(slope, line.slope_spread, line.offset, line.offset_spread, value)


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
