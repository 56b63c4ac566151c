"""Every gate at its middle slope: one pass for all rows and both signs (affine arithmetic of the gradient).

A gate ``u = a J`` with ``a`` in ``[lo, hi]`` is ``m J + d`` with the middle slope ``m`` and ``|d| <= h |J|``,
``h`` half the width. So a gradient entry ``j`` differs from that of the network with middle slopes by at most

    sum over later gates i of  |T_ij| h_i M_i ,     M_i >= |J_i| ,

where ``T_ij`` is the derivative of gate i's pre-activation with respect to entry j under middle slopes. ``T`` knows
neither rows nor signs, and going back from one layer's gates gives it for all earlier entries at once; rows enter
through one product. Gates nearer the output come first, as ``M`` of theirs is needed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from lipcompare.budget import Copies, Deadline, chunk_size, pass_bytes, tensor_bytes
from lipcompare.gates import Gates
from lipcompare.jacobian.gradients import Gradients
from lipcompare.jacobian.interval import scales
from lipcompare.jacobian.linear import without_undecided_gates
from lipcompare.jacobian.lines import GateLines, chords
from lipcompare.network.graph import Activate, Affine, Network, adjoints, fold_backward
from lipcompare.network.grids import Grid, grids
from lipcompare.network.grouping import Group, by_position, grouped
from lipcompare.network.interval import Interval
from lipcompare.network.linear_maps import LinearMap
from lipcompare.network.patches import Items, Patches, Table, positions_of, push_back, window_costs
from lipcompare.rounding import allowance


def shared_gradients(
    network: Network, gates: Gates, functionals: Tensor, *, memory: int, deadline: Deadline | None = None
) -> Gradients:
    """Intervals of the gradient at every activation that the output depends on and at the input, from one tangent for
    all rows; and the hull of each gate over its interval.

    Args:
        functionals: (batch, rows, outputs).
        deadline: when it has passed, nodes to which not all gates have added yet get the sum of the absolute values of
            all terms.
    """
    deadline = deadline or Deadline()
    shapes = grids(network)
    rows = functionals.shape[1]
    middle = {k: slope.center for k, slope in gates.slopes.items()}
    centers = _in_parts(functionals, network.widest, memory, partial(_middle_gradients, network, middle))
    sizes = _in_parts(functionals, network.widest, memory, partial(scales, network, gates))
    # The terms of the middle and of what each layer of gates adds are, without signs, at most the scale each.
    share = len(centers) * allowance(2 * network.operations, functionals.dtype)
    errors = {k: _Spread(functionals, rows, shapes[k]) for k in centers}
    tables = {k: Table(middle[k], shapes[k]) for k in middle}
    tile = pass_bytes(memory, functionals.device) // functionals.element_size()
    complete = 0  # from this node on all gates have added what they add
    for k in sorted(centers.keys() - {0}, reverse=True):
        node = network.nodes[k].parents[0]
        widest = window_costs(network, node).widest
        half, positions = gates.slopes[k].radius, errors[k].positions
        slots = by_position(gates.unstable(k).unsqueeze(1), shapes[node])
        for group in grouped(slots, most=tile // widest, together=tile // (widest * rows)):
            example, entry = group.example.unsqueeze(-1), group.slot * positions + group.position.unsqueeze(-1)
            if deadline.passed():
                complete = k
                break
            size = centers[k][example, :, entry].abs() + share * sizes[k][example, :, entry]
            size = size + errors[k].at(group)
            weights = size * (half[example, entry] * group.filled).unsqueeze(-1)
            _spread_group(network, tables, errors, shapes, node, group, weights)
        if complete:
            break
    intervals, lines = {}, {}
    for k, center in centers.items():
        if k < complete:
            radius = sizes[k] * (1 + share)
            intervals[k] = Interval(-radius, radius)
        else:
            radius = errors.pop(k).total().add_(sizes[k], alpha=share)
            intervals[k] = Interval(center - radius, center.add_(radius))
        if k:
            lines[k] = _hull(intervals[k], Interval(*(v.unsqueeze(1) for v in gates.slopes[k])), memory)
    constant = without_undecided_gates(network, gates) & intervals.keys()
    return Gradients(intervals=intervals, lines=lines, constant=constant, scales=sizes)


def intersected(gradients: Gradients, within: Mapping[int, Interval], gates: Gates, *, memory: int) -> Gradients:
    """The same with intervals that hold as well, and with the hulls of gates over what is left."""
    intervals = {k: v.intersect(within[k]) if k in within else v for k, v in gradients.intervals.items()}
    slopes = {k: Interval(*(v.unsqueeze(1) for v in gates.slopes[k])) for k in gradients.lines}
    lines = {k: _hull(intervals[k], slope, memory) for k, slope in slopes.items()}
    return dataclasses.replace(gradients, intervals=intervals, lines=lines)


def _hull(gradient: Interval, slope: Interval, memory: int) -> GateLines:
    """:func:`~lipcompare.jacobian.lines.chords`, for some rows at a time."""
    rows = gradient.lower.shape[1]
    some = chunk_size(memory, slope.lower.device, tensor_bytes(Copies.SAMPLE, slope.lower.numel(), slope.lower))
    if some >= rows:
        return chords(gradient, slope)
    parts = [chords(Interval(*ends), slope) for ends in zip(*(end.split(some, 1) for end in gradient), strict=True)]
    return GateLines(
        slope=parts[0].slope,
        slope_spread=torch.cat([part.slope_spread for part in parts], 1),
        offset=None,
        offset_spread=torch.cat([part.offset_spread for part in parts], 1),
    )


def _in_parts(
    functionals: Tensor, widest: int, memory: int, gradients: Callable[[Tensor], dict[int, Tensor]]
) -> dict[int, Tensor]:
    """Something (batch, rows, size) of each node, made of some rows at a time."""
    batch, rows, _ = functionals.shape
    each = tensor_bytes(Copies.POINT, batch * widest, functionals)
    whole: dict[int, Tensor] = {}
    start = 0
    for some in functionals.split(chunk_size(memory, functionals.device, each), 1):
        for k, values in gradients(some).items():
            if k not in whole:
                whole[k] = values.new_empty(batch, rows, values.shape[-1])
            whole[k][:, start : start + some.shape[1]] = values
        start += some.shape[1]
    return whole


def _middle_gradients(network: Network, middle: dict[int, Tensor], functionals: Tensor) -> dict[int, Tensor]:
    """Gradients (batch, rows, size) with all gates at their middle slopes, at activations and the input."""
    gradients: dict[int, Tensor] = {}

    def activation(k: int, _: Activate, gradient: Tensor) -> Tensor:
        gradients[k] = gradient
        return gradient * middle[k].unsqueeze(1)

    start = fold_backward(network, {len(network.nodes) - 1: functionals}, activation, adjoints)
    gradients[0] = functionals.new_zeros(*functionals.shape[:-1], network.in_size) if start is None else start
    return gradients


class _Spread:
    """What gates add to the spread of one node's gradient, collected by windows."""

    def __init__(self, like: Tensor, rows: int, grid: Grid) -> None:
        self.batch, self.rows, self.grid, self.positions = like.shape[0], rows, grid, math.prod(grid[1:])
        # One more position per example takes what lies over the edges.
        self.sums = like.new_zeros(self.batch * (self.positions + 1), grid[0] * rows)

    def at(self, group: Group) -> Tensor:
        """(groups, slots, rows) of entries of the node's value; slots are channels."""
        sums = self.sums.view(-1, self.grid[0], self.rows)
        return sums[(group.example * (self.positions + 1) + group.position).unsqueeze(-1), group.slot]

    def add(self, tangents: Patches, group: Group, weights: Tensor) -> None:
        """``tangents``: of groups x slots items. ``weights``: (groups, slots, rows)."""
        groups, slots, _ = weights.shape
        size = tangents.values.abs().reshape(groups, slots, -1)
        index = tangents.index + (group.example * (self.positions + 1)).unsqueeze(-1)
        parts = (size.transpose(1, 2) @ weights).reshape(index.numel(), -1)
        self.sums.index_add_(0, index.flatten(), parts)

    def total(self) -> Tensor:
        """(batch, rows, size)."""
        sums = self.sums.view(self.batch, self.positions + 1, self.grid[0], self.rows)[:, :-1]
        return sums.permute(0, 3, 2, 1).flatten(2)


def _spread_group(
    network: Network,
    tables: dict[int, Table],
    errors: dict[int, _Spread],
    shapes: tuple[Grid, ...],
    node: int,
    group: Group,
    weights: Tensor,
) -> None:
    """Go back from one group of gates, whose pre-activations are ``node``, and add to all spreads on the way.

    ``weights``: (groups, slots, rows) ``h M`` of the gates.
    """
    slots = group.slot.shape[1]
    items = Items(positions_of(group.position, shapes[node]), shapes[node][1:], group.example, slots)

    def activation(k: int, _: Activate, tangents: Patches) -> Patches:
        errors[k].add(tangents, group, weights)
        return tangents.with_rows(tangents.rows * tables[k].read(tangents))

    def affine(k: int, _: Affine, maps: Sequence[LinearMap], tangents: Patches) -> Iterator[Patches]:
        clean = tangents.cleaned()
        parents = network.nodes[k].parents
        return (push_back(m, clean, shapes[p]) for p, m in zip(parents, maps, strict=True))

    start = Patches.entries(items, group.slot.flatten(), shapes[node], weights.dtype)
    tangents = fold_backward(network, {node: start}, activation, affine)
    if tangents is not None:
        errors[0].add(tangents, group, weights)
