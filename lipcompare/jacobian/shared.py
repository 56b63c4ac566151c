"""Every gate at its middle slope: one pass for all rows and both signs (affine arithmetic of the gradient).

A gate ``u = a J`` with ``a`` in ``[lo, hi]`` is ``m J + d`` with the middle slope ``m`` and ``|d| <= h |J|``,
``h`` half the width. So a gradient entry ``j`` differs from that of the network with middle slopes by at most

    sum over later gates i of  |T_ij| h_i M_i ,     M_i >= |J_i| ,

where ``T_ij`` is the derivative of gate i's pre-activation with respect to entry j under middle slopes. ``T`` knows
neither rows nor signs, and going back from one layer's gates gives it for all earlier entries at once; rows enter
through one product. Gates nearer the output come first, as ``M`` of theirs is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from torch import Tensor

from lipcompare.budget import pass_bytes
from lipcompare.gates import Gates
from lipcompare.jacobian.grouping import Group, by_position, grouped
from lipcompare.jacobian.interval import scales
from lipcompare.network.graph import Activate, Affine, Network, adjoints, fold_backward
from lipcompare.network.grids import Grid, grids
from lipcompare.network.interval import Interval
from lipcompare.network.linear_maps import LinearMap
from lipcompare.network.patches import Items, Patches, Table, positions_of, push_back, window_costs
from lipcompare.rounding import allowance


def shared_intervals(network: Network, gates: Gates, functionals: Tensor, *, memory: int) -> dict[int, Interval]:
    """Intervals of the gradient at every activation and at the input, from one tangent for all rows.

    Args:
        functionals: (batch, rows, outputs).

    Returns:
        Per activation that the output depends on, and for the input, an interval (batch, rows, size).
    """
    middle = {k: slope.center for k, slope in gates.slopes.items()}
    half = {k: slope.radius for k, slope in gates.slopes.items()}
    centers = _middle_gradients(network, middle, functionals)
    shapes = grids(network)
    rows = functionals.shape[1]
    # The terms of the middle and of what each layer of gates adds are, without signs, at most the scale each.
    layers = len(centers)
    part = layers * allowance(2 * network.operations, functionals.dtype)
    rounding = {k: part * scale for k, scale in scales(network, gates, functionals).items()}
    errors = {k: _Spread(functionals, rows, shapes[k]) for k in centers}
    tables = {k: Table(middle[k], shapes[k]) for k in middle}
    for k in sorted(centers, reverse=True):
        if k == 0:
            continue
        reach = half[k].unsqueeze(1) * (centers[k].abs() + errors[k].total() + rounding[k])
        node = network.nodes[k].parents[0]
        weights = by_position(reach, shapes[node]).unflatten(-1, (-1, rows)).flatten(0, 1)
        tile = pass_bytes(memory, functionals.device) // functionals.element_size()
        widest = window_costs(network, node).widest
        slots = by_position(gates.unstable(k).unsqueeze(1), shapes[node])
        for group in grouped(slots, most=tile // widest, together=tile // (widest * rows)):
            _spread_group(network, tables, errors, shapes, node, group, weights)
    return {k: _around(centers[k], errors[k].total() + rounding[k]) for k in centers}


def _around(center: Tensor, radius: Tensor) -> Interval:
    return Interval(center - radius, center + radius)


def _middle_gradients(network: Network, middle: dict[int, Tensor], functionals: Tensor) -> dict[int, Tensor]:
    """Gradients (batch, rows, size) with all gates at their middle slopes, at activations and the input."""
    found: dict[int, Tensor] = {}

    def activation(k: int, _: Activate, gradient: Tensor) -> Tensor:
        found[k] = gradient
        return gradient * middle[k].unsqueeze(1)

    start = fold_backward(network, {len(network.nodes) - 1: functionals}, activation, adjoints)
    found[0] = functionals.new_zeros(*functionals.shape[:-1], network.in_size) if start is None else start
    return found


class _Spread:
    """What gates add to the spread of one node's gradient, collected by windows."""

    def __init__(self, like: Tensor, rows: int, grid: Grid) -> None:
        self.batch, self.rows, self.grid, self.positions = like.shape[0], rows, grid, math.prod(grid[1:])
        # One more position per example takes what lies over the edges.
        self.sums = like.new_zeros(self.batch * (self.positions + 1), grid[0] * rows)

    def add(self, tangents: Patches, group: Group, weights: Tensor) -> None:
        """``tangents``: of groups x slots items. ``weights``: (groups, slots, rows)."""
        groups, slots, _ = weights.shape
        size = tangents.values.abs().reshape(groups, slots, -1)
        index = tangents.index.view(groups, slots, -1)[:, 0] + (group.example * (self.positions + 1)).unsqueeze(-1)
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
    reach: Tensor,
) -> None:
    """Go back from one group of gates, whose pre-activations are ``node``, and add to all spreads on the way."""
    slots = group.slot.shape[1]
    positions = math.prod(shapes[node][1:])
    weights = reach[(group.example * positions + group.place).unsqueeze(-1), group.slot]
    weights = weights * group.filled.unsqueeze(-1)
    places, field = (v.repeat_interleave(slots, 0) for v in (positions_of(group.place, shapes[node]), group.example))
    items = Items(places, shapes[node][1:], field)

    def activation(k: int, _: Activate, tangents: Patches) -> Patches:
        errors[k].add(tangents, group, weights)
        return tangents.with_values(tangents.values * tables[k].read(tangents))

    def affine(k: int, _: Affine, maps: Sequence[LinearMap], tangents: Patches) -> Iterator[Patches]:
        clean = tangents.cleaned()
        parents = network.nodes[k].parents
        return (push_back(m, clean, shapes[p]) for p, m in zip(parents, maps, strict=True))

    start = Patches.entries(items, group.slot.flatten(), shapes[node], reach.dtype)
    tangents = fold_backward(network, {node: start}, activation, affine)
    if tangents is not None:
        errors[0].add(tangents, group, weights)
