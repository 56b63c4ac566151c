"""CROWN on receptive fields: the backward pass of :mod:`~lipcompare.preactivation.backward`, on windows of images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from lipcompare.budget import Deadline, chunk_size
from lipcompare.network.activations import Lines
from lipcompare.network.graph import Activate, Affine, Network, fold_backward
from lipcompare.network.grids import Grid, grids
from lipcompare.network.interval import Interval
from lipcompare.network.linear_maps import LinearMap
from lipcompare.network.patches import Items, Patches, Table, dot, located, push_back, window_costs

_GAIN = 0.7
"""Share of the operations on whole images below which patches are taken, which have more overhead each."""


class LineTables:
    """Two lines around an activation as middle and half difference, as tables (fields: examples)."""

    def __init__(self, lines: Lines, grid: Grid) -> None:
        lower, low, upper, high = (v.expand_as(lines.upper_slope) for v in lines)
        self.slope, self.spread = Table((upper + lower) / 2, grid), Table((upper - lower) / 2, grid)
        self.offset_spread = Table((high - low) / 2, grid)
        self.offset = Table((high + low) / 2, grid)


class Biases:
    """A constant on an image, weighed by patches."""

    def __init__(self, bias: Tensor, grid: Grid) -> None:
        rows = bias.reshape(grid[0], -1)
        self.channels = rows[:, 0] if bool((rows == rows[:, :1]).all()) else None
        self.table = Table(bias.unsqueeze(0), grid)

    def weighed(self, patches: Patches) -> Tensor:
        """(signs, items)."""
        if self.channels is not None:
            return patches.values.reshape(*patches.values.shape[:2], -1, len(self.channels)).sum(2) @ self.channels
        first = torch.zeros_like(patches.items.field)
        index = None if patches.is_whole else self.table.index(patches, first)
        return dot(patches.values, self.table.read(patches, index))


class PatchBackward:
    """Bounds on single neurons of an affine node over a batch of boxes."""

    def __init__(self, network: Network, box: Interval, lines: Mapping[int, Lines]) -> None:
        """``lines``: of every activation node before those that are bounded; fields (batch, neurons)."""
        self.network = network
        self.grids = grids(network)
        self.lines = {k: LineTables(line, self.grids[k]) for k, line in lines.items()}
        self.center, self.radius = Table(box.center, self.grids[0]), Table(box.radius, self.grids[0])
        self.biases = {
            k: Biases(node.bias, self.grids[k])
            for k, node in enumerate(network.nodes)
            if isinstance(node, Affine) and node.bias is not None
        }

    def bounds(self, node: int, items: Items, channel: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds (items,) on the entries ``channel`` (items,) at the items' places.

        Fields of the items are examples.
        """
        dtype = self.center.rows.dtype
        constant: list[Tensor] = []

        def activation(k: int, _: Activate, weights: Patches) -> Patches:
            table = self.lines[k]
            index = None if weights.is_whole and table.slope.fields == 1 else table.slope.index(weights)
            size = weights.values.abs()
            constant.append(dot(weights.values, table.offset.read(weights, index)))
            constant.append(dot(size, table.offset_spread.read(weights, index)))
            values = weights.values * table.slope.read(weights, index)
            return weights.with_values(values.addcmul_(size, table.spread.read(weights, index)))

        def affine(k: int, _: Affine, maps: Sequence[LinearMap], weights: Patches) -> Iterator[Patches]:
            weights = weights.cleaned()
            if k in self.biases:
                constant.append(self.biases[k].weighed(weights))
            parents = self.network.nodes[k].parents
            return (push_back(m, weights, self.grids[p]) for p, m in zip(parents, maps, strict=True))

        one = Patches.entries(items, channel, self.grids[node], dtype)
        start = one.with_values(torch.cat([one.values, -one.values]))
        weights = fold_backward(self.network, {node: start}, activation, affine)
        if weights is not None:
            index = None if weights.is_whole and self.center.fields == 1 else self.center.index(weights)
            constant.append(dot(weights.values, self.center.read(weights, index)))
            constant.append(dot(weights.values.abs(), self.radius.read(weights, index)))
        total = torch.stack(constant).sum(0) if constant else self.center.rows.new_zeros(2, items.count)
        return -total[1], total[0]


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
    memory: int,
    deadline: Deadline,
) -> Interval:
    """Bounds on one affine node: entries ``wanted`` (batch, size) by a backward pass, the others as in ``current``."""
    backward = PatchBackward(network, box, lines)
    grid = backward.grids[node]
    lower, upper = current.lower.clone(), current.upper.clone()
    bytes_each = 2 * lower.element_size() * window_costs(network, node).widest
    chunk = chunk_size(memory, lower.device, bytes_each)
    example, entry = wanted.nonzero(as_tuple=True)
    for start in range(0, len(entry), chunk):
        if deadline.passed():
            break
        here, neuron = example[start : start + chunk], entry[start : start + chunk]
        items, channel = located(here, neuron, grid)
        low, high = backward.bounds(node, items, channel)
        lower[here, neuron] = torch.maximum(lower[here, neuron], low)
        upper[here, neuron] = torch.minimum(upper[here, neuron], high)
    return Interval(lower, upper)
