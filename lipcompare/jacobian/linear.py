"""Linear bound propagation on the chain rule: the paper's bound, and RecurJac as a looser choice of lines.

A gradient ``J`` at an activation's output passes its gate as ``u = a J``, ``a`` in ``[lo, hi]``. Over an interval of
``J`` this product lies between two lines, and a linear functional of any gradient is bounded by pushing its weights
through the network, from the node it belongs to towards the output, replacing each gate by one of its lines (arXiv
2210.07394, section 3). The intervals come from the same recursion, from the output side. Where a node's gradient does
not depend on any undecided gate it is a known constant and the recursion ends there.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from lipcompare.budget import Copies, Deadline, chunk_size, tensor_bytes
from lipcompare.gates import Gates
from lipcompare.jacobian.gradients import Gradients
from lipcompare.jacobian.interval import Reach, at_output, nothing, sum_of, through_gate, through_maps
from lipcompare.jacobian.lines import GateLines, LineRule, chords, gate_planes, total
from lipcompare.jacobian.norms import absolute_chord, interval_norm, square_chord
from lipcompare.jacobian.passes import entry_bounds, functional_bound, underflow_of_passes
from lipcompare.jacobian.patches import Relaxed, bounded_entries, plan
from lipcompare.jacobian.smooth import Forward
from lipcompare.network.activations import Lines
from lipcompare.network.graph import (
    Activate,
    Affine,
    Network,
    fold_backward,
)
from lipcompare.network.interval import Interval
from lipcompare.network.linear_maps import LinearMap
from lipcompare.problem import Norm
from lipcompare.rounding import allowance, power_of_two, raised, scaled, total_above, unit_roundoff


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
        lines[k] = line._replace(terms=total(scales[k], size))
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
    pushed = functional_bound(network, functionals, gradients, 0, slope.unsqueeze(2), forward).squeeze(2)
    if norm is Norm.TWO:
        pushed = scaled(pushed, -exponent.squeeze(-1))
    constant = total_above(intercept)
    bound = (pushed + constant).clamp(min=0)
    bound = bound.add(pushed.abs() + constant.abs(), alpha=2 * unit_roundoff(bound.dtype))
    if norm is Norm.TWO:
        bound = scaled(raised(bound.sqrt(), 1), exponent.squeeze(-1))
    # Slopes without a bound (an exponential far out) multiply zeros.
    return torch.minimum(bound, box).nan_to_num(nan=torch.inf, posinf=torch.inf)


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
        terms = gradients.scales[node] + underflow_of_passes(network, gradients, node)
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
        found.append(entry_bounds(network, functionals, gradients, node, entries, forward))
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
