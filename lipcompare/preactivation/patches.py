"""CROWN on receptive fields: the backward pass of :mod:`~lipcompare.preactivation.backward`, on windows of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from lipcompare.budget import Deadline, fitting, pass_bytes
from lipcompare.network.activations import Lines
from lipcompare.network.graph import Activate, Affine, Network, fold_backward
from lipcompare.network.grids import Grid, grids
from lipcompare.network.grouping import Group, by_entry, by_position, grouped
from lipcompare.network.interval import Interval
from lipcompare.network.linear_maps import LinearMap
from lipcompare.network.patches import Items, Patches, Table, dot, positions_of, push_back, window_costs

_GAIN = 0.7
"""Share of the operations on whole images below which patches are taken, which have more overhead each."""


class LineTables:
    """Two lines around an activation, the lower one and what the upper one has more, as tables (fields: examples)."""

    def __init__(self, lines: Lines, grid: Grid) -> None:
        lower, low, upper, high = (v.expand_as(lines.upper_slope) for v in lines)
        self.slope, self.rise = Table(lower, grid), Table(upper - lower, grid)
        self.offset, self.lift = Table(low, grid), Table(high - low, grid)

    def through(self, weights: Patches, constant: list[Tensor]) -> Patches:
        """Replace the activation by its lines: what goes on to its argument, and the constant that is left."""
        index, rows = self.slope.index(weights), weights.rows
        positive = rows.clamp(min=0)
        constant.append(dot(rows, self.offset.read(weights, index)))
        constant.append(dot(positive, self.lift.read(weights, index)))
        passed = rows * self.slope.read(weights, index)
        return weights.with_rows(passed.addcmul_(positive, self.rise.read(weights, index)))


class Biases:
    """A constant on an image, weighed by patches."""

    def __init__(self, bias: Tensor, grid: Grid) -> None:
        rows = bias.reshape(grid[0], -1)
        self.channels = rows[:, 0] if bool((rows == rows[:, :1]).all()) else None
        self.table = Table(bias.unsqueeze(0), grid)

    def weighed(self, patches: Patches) -> Tensor:
        """(signs, items)."""
        if self.channels is not None:
            size = patches.frame.volume
            return patches.values.view(*patches.values.shape[:2], -1) @ self.channels.repeat(size)
        return dot(patches.rows, self.table.alike(patches))


class PatchBackward:
    """Bounds on single neurons of an affine node over a batch of boxes."""

    def __init__(
        self,
        network: Network,
        box: Interval,
        lines: Mapping[int, Lines],
        ends: Mapping[int, Interval] = MappingProxyType({}),
    ) -> None:
        """``lines``: of every activation node before those that are bounded; fields (batch, neurons). ``ends``: values
        (batch, neurons) of activation nodes where a pass ends, instead of at the input."""
        self.network = network
        self.grids = grids(network)
        self.lines = {k: LineTables(line, self.grids[k]) for k, line in lines.items()}
        self.ends = {k: (Table(z.center, self.grids[k]), Table(z.radius, self.grids[k])) for k, z in ends.items()}
        self.center, self.radius = Table(box.center, self.grids[0]), Table(box.radius, self.grids[0])
        self.biases = {
            k: Biases(node.bias, self.grids[k])
            for k, node in enumerate(network.nodes)
            if isinstance(node, Affine) and node.bias is not None
        }

    def bounds(self, node: int, group: Group) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds (groups, slots) on entries of a node's value; slots are channels."""
        dtype = self.center.rows.dtype
        constant: list[Tensor] = []
        groups, slots = group.slot.shape
        grid = self.grids[node]
        items = Items(positions_of(group.position, grid), grid[1:], group.example, slots)

        def activation(k: int, _: Activate, weights: Patches) -> Patches | None:
            if k in self.ends:
                _collect(weights, *self.ends[k], constant)
                return None
            return self.lines[k].through(weights, constant)

        one = Patches.entries(items, group.slot.flatten(), grid, dtype)
        total = self.upper(node, one.with_values(torch.cat([one.values, -one.values])), activation, constant)
        return -total[1].view(groups, slots), total[0].view(groups, slots)

    def upper(
        self,
        node: int,
        start: Patches,
        activation: Callable[[int, Activate, Patches], Patches | None],
        constant: list[Tensor],
    ) -> Tensor:
        """Upper bounds (signs, items) on functionals of a node's value.

        Args:
            activation: the rule that replaces an activation by lines.
            constant: where it leaves what does not depend on the input.
        """

        def affine(k: int, _: Affine, maps: Sequence[LinearMap], weights: Patches) -> Iterator[Patches]:
            weights = weights.cleaned()
            if k in self.biases:
                constant.append(self.biases[k].weighed(weights))
            parents = self.network.nodes[k].parents
            return (push_back(m, weights, self.grids[p]) for p, m in zip(parents, maps, strict=True))

        weights = fold_backward(self.network, {node: start}, activation, affine)
        if weights is not None:
            _collect(weights, self.center, self.radius, constant)
        return torch.stack(constant).sum(0) if constant else start.values.new_zeros(start.values.shape[:2])


def _collect(weights: Patches, center: Table, radius: Table, constant: list[Tensor]) -> None:
    """The largest value of weights over a box, added to what a bound consists of."""
    index = center.index(weights)
    constant.append(dot(weights.rows, center.read(weights, index)))
    constant.append(dot(weights.rows.abs(), radius.read(weights, index)))


def prefers_patches(network: Network, node: int) -> bool:
    """Whether backward passes from single entries of a node take fewer operations on patches than on whole images."""
    if len(grids(network)[node]) == 1:
        return False
    costs = window_costs(network, node)
    return costs.windows < _GAIN * costs.images


def patch_bounds(
    network: Network,
    box: Interval,
    lines: Mapping[int, Lines],
    node: int,
    wanted: Tensor,
    current: Interval,
    *,
    ends: Mapping[int, Interval] = MappingProxyType({}),
    memory: int,
    deadline: Deadline,
) -> Interval:
    """Bounds on one affine node: entries ``wanted`` (batch, size) by a backward pass, the others as in ``current``.

    ``ends``: as for :class:`PatchBackward`.
    """
    backward = PatchBackward(network, box, {k: line for k, line in lines.items() if k not in ends}, ends)
    grid = backward.grids[node]
    lower, upper = (by_position(end.unsqueeze(1), grid).contiguous() for end in current)
    bytes_each = 2 * lower.element_size() * window_costs(network, node, ends).widest
    most = fitting(pass_bytes(memory, lower.device), bytes_each)
    for group in grouped(by_position(wanted.unsqueeze(1), grid), most=most, together=most):
        if deadline.passed():
            break
        low, high = backward.bounds(node, group)
        index = (group.example.unsqueeze(-1), group.position.unsqueeze(-1), group.slot)
        lower[index] = torch.where(group.filled, torch.maximum(lower[index], low), lower[index])
        upper[index] = torch.where(group.filled, torch.minimum(upper[index], high), upper[index])
    return Interval(*(by_entry(end, grid, 1).squeeze(1) for end in (lower, upper)))
