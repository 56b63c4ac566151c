"""The recursion of :mod:`~lipcompare.jacobian.linear` for single entries of images, on the windows that they reach.

An entry of the gradient at a convolution's input reaches a window of each later image, and only the rows and entries
that are asked for are bounded. At the first dense layer all entries at one position meet the same columns of its
matrix; where every later gate is decided or meets a known gradient, only its undecided units are needed, as what the
others pass on is a known linear function.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from lipcompare.budget import Deadline, pass_bytes
from lipcompare.network.graph import Activate, Affine, Network, Terms, fold_forward
from lipcompare.network.grids import Frame, Grid, factors, grids, whole
from lipcompare.network.grouping import Group, by_entry, by_position, grouped
from lipcompare.network.interval import Interval
from lipcompare.network.linear_maps import Conv, Dense, Identity, LinearMap, Scale, Transposed
from lipcompare.network.patches import Costs, Items, Patches, Table, dot, frame_after, positions_of, push_on

_GAIN = 0.7
"""Share of the operations on whole images below which patches are taken, which have more overhead each."""
_PASS = 16
"""Multiply-adds that take as long as what is done to one entry, of both signs, between two products."""

_CLASS = 5e6
"""Multiply-adds that take as long as the overhead of one pass over positions that lie alike."""


class Relaxed(NamedTuple):
    """Two lines around a gate by middle and half difference, each (batch, rows or 1, size).

    Attributes:
        value: the gradient that the gate meets, where it is known.
    """

    slope: Tensor
    slope_spread: Tensor
    offset: Tensor | None
    offset_spread: Tensor
    value: Tensor | None = None


class Plan(NamedTuple):
    """How entries of one node are pushed on: positions ``period`` apart together, at so much an entry."""

    period: tuple[int, ...]
    costs: Costs


def plan(network: Network, source: int) -> Plan | None:
    """How the gradient's entries at a node are bounded on patches; None where whole images are cheaper."""
    grid = grids(network)[source]
    if len(grid) == 1:
        return None
    positions = math.prod(grid[1:])
    plans = [Plan(period, _costs(network, source, period)) for period in _periods(network, source)]
    best = min(plans, key=lambda p: p.costs.windows + _CLASS * math.prod(p.period) / (positions * grid[0]))
    few = math.prod(best.period) <= max(1, positions // 4)
    return best if few and best.costs.windows < _GAIN * best.costs.images else None


def _periods(network: Network, source: int) -> list[tuple[int, ...]]:
    """How far positions must lie apart for their windows to lie the same way everywhere up to some later node."""
    axes = len(grids(network)[source]) - 1
    periods: list[tuple[int, ...]] = [(1,) * axes]

    def affine(k: int, node: Affine, terms: Terms[tuple[Fraction, ...]]) -> tuple[Fraction, ...]:
        results = [tuple(_step(m, step)) for m, step in terms]
        for result in results:
            wider = tuple(math.lcm(n, step.denominator) for n, step in zip(periods[-1], result, strict=False))
            if len(wider) == axes and wider != periods[-1]:
                periods.append(wider)
        return max(results, key=len)

    fold_forward(network, {source: (Fraction(1),) * axes}, lambda k, node, step: step, affine)
    return periods


def _step(m: LinearMap, step: tuple[Fraction, ...]) -> tuple[Fraction, ...]:
    """How far windows move that moved by ``step`` before the map; nothing where they are whole images then."""
    for factor in factors(m):
        base = factor.base if isinstance(factor, Transposed) else factor
        if isinstance(base, Conv) and len(base.stride) == len(step):
            step = tuple(s / t if factor is base else s * t for s, t in zip(step, base.stride, strict=True))
        elif not isinstance(base, (Identity, Scale)):
            return ()
    return step


def _costs(network: Network, source: int, period: tuple[int, ...]) -> Costs:
    """Operations and memory for one entry of a node's gradient, both signs."""
    shapes = grids(network)
    windows = images = 0
    widest = 1

    def activation(k: int, node: Activate, frame: Frame) -> Frame:
        nonlocal windows, images
        windows += _PASS * frame.volume * shapes[k][0]
        images += _PASS * node.size
        return frame

    def affine(k: int, node: Affine, terms: Terms[Frame]) -> Frame:
        nonlocal windows, images, widest
        result: Frame | None = None
        for m, frame in terms:
            p = next(p for p, other in node.terms if other is m)
            after, operations, entries = frame_after(m, frame, shapes[p], shapes[k])
            windows += operations
            images += frame_after(m, whole(shapes[p]), shapes[p], shapes[k])[1]
            widest = max(widest, entries)
            both = after if result is None else result.union(after)
            result = whole(shapes[k]) if both is None else both
        assert result is not None
        return result

    start = Frame((0,) * len(period), period, (1,) * len(period))
    fold_forward(network, {source: start}, activation, affine)
    return Costs(windows, images, widest)


class _Closing(NamedTuple):
    """A dense layer whose units meet known gradients.

    Attributes:
        linear: gradient through the layer with middle slopes, at what the layer reads.
        columns: (positions + 1, channels x units) of the undecided units; the last position, over the edge, is zero.
        spread: (batch x rows, units) what the absolute value of each is multiplied with.
    """

    linear: Table
    columns: Tensor
    spread: Tensor


class PatchForward:
    """Bounds on single entries of a node's gradient, for pairs of rows and entries."""

    def __init__(self, network: Network, functionals: Tensor, relaxed: Mapping[int, Relaxed], source: int) -> None:
        """``relaxed``: of every activation after ``source``; ``functionals``: (batch, rows, outputs)."""
        self.network, self.source, self.shapes = network, source, grids(network)
        self.rows = functionals.shape[1]
        self.functionals = Table(functionals.flatten(0, 1), self.shapes[-1])
        self.lines: dict[int, _LineTables] = {}
        self.closing: dict[int, _Closing] = {}
        for k, line in relaxed.items():
            node = network.nodes[k].parents[0]
            if k > source and line.value is not None and self._closes(node, k):
                self.closing[node] = self._close(node, line)
            elif k > source:
                self.lines[k] = _LineTables(line, self.shapes[k])

    def _closes(self, node: int, k: int) -> bool:
        """Whether an affine node is a dense layer on images that only activation ``k`` reads."""
        layer = self.network.nodes[node]
        if not isinstance(layer, Affine) or len(layer.maps) != 1 or self.network.consumers[node] != (k,):
            return False
        m = layer.maps[0]
        return isinstance(m, Dense) and m.blocks == 1 and len(self.shapes[layer.parents[0]]) > 1

    def _close(self, node: int, line: Relaxed) -> _Closing:
        layer = self.network.nodes[node]
        assert isinstance(layer, Affine)
        (m,) = layer.maps
        assert isinstance(m, Dense) and line.value is not None
        middle = line.value * line.slope
        middle = middle if line.offset is None else middle + line.offset
        spread = (line.value * line.slope_spread + line.offset_spread).flatten(0, 1)
        grid = self.shapes[layer.parents[0]]
        units = (spread != 0).any(0).nonzero().squeeze(-1)
        units = units if len(units) else units.new_zeros(1)
        columns = m.weight[units].reshape(len(units), grid[0], math.prod(grid[1:])).permute(2, 1, 0)
        columns = torch.cat([columns, columns.new_zeros(1, *columns.shape[1:])]).flatten(1)
        return _Closing(Table(m.adjoint(middle).flatten(0, 1), grid), columns, spread[:, units])

    def bounds(self, group: Group, period: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Lower and upper bounds (groups, slots); slot ``channel x rows + row`` is an entry of a row."""
        groups, slots = group.slot.shape
        grid = self.shapes[self.source]
        residue = _residue(group.kind, period)
        apart = torch.tensor(period, device=group.position.device)
        places = (positions_of(group.position, grid) - torch.tensor(residue, device=apart.device)) // apart
        extent = tuple(-(-(n - r) // s) for n, r, s in zip(grid[1:], residue, period, strict=True))
        channel, row = group.slot // self.rows, group.slot % self.rows
        field = group.example.unsqueeze(-1) * self.rows + row
        items = Items(places, extent, group.example, slots)
        frame = Frame(residue, period, (1,) * len(period))
        one = Patches.entries(items, channel.flatten(), grid, self.functionals.rows.dtype, frame)
        constant: list[Tensor] = []

        def activation(k: int, _: Activate, tangents: Patches) -> Patches | None:
            node = self.network.nodes[k].parents[0]
            if node in self.closing:
                constant.append(dot(tangents.rows.abs(), self.closing[node].spread[field]))
                return None
            return self.lines[k].through(tangents, field, constant)

        def affine(k: int, _: Affine, terms: Terms[Patches]) -> Patches:
            if k in self.closing:
                ((_m, tangents),) = terms
                return self._columns(k, tangents, field, constant)
            parts = [push_on(m, tangents.cleaned(), self.shapes[k]) for m, tangents in terms]
            return functools.reduce(operator.add, parts)

        start = one.with_values(torch.cat([one.values, -one.values]))
        arrived = fold_forward(self.network, {self.source: start}, activation, affine)
        if arrived is not None:
            constant.append(dot(arrived.rows, self.functionals.read(arrived, self.functionals.index(arrived, field))))
        total = torch.stack(constant).sum(0)
        return -total[1].view(groups, slots), total[0].view(groups, slots)

    def _columns(self, node: int, tangents: Patches, field: Tensor, constant: list[Tensor]) -> Patches:
        """What reaches the undecided units of a closing layer; the others' share goes to the constant."""
        closing = self.closing[node]
        tangents = tangents.cleaned()
        index = closing.linear.index(tangents, field)
        constant.append(dot(tangents.rows, closing.linear.read(tangents, index)))
        units = closing.spread.shape[1]
        columns = closing.columns.index_select(0, tangents.index.flatten()).view(tangents.items.groups, -1, units)
        values = [sign @ columns for sign in tangents.rows]
        return Patches(torch.stack(values).flatten(1, 2), tangents.items, Frame((), (), ()), (units,))


class _LineTables:
    """The lines of one activation, read by windows; slopes that all rows share are kept once per example."""

    def __init__(self, line: Relaxed, grid: Grid) -> None:
        self.shared = line.slope.shape[1] == 1
        self.decided = line.value is not None
        value, slope, spread, offset = line.value, line.slope, line.slope_spread, line.offset
        offset_spread = line.offset_spread
        if value is not None:
            offset = value * slope if offset is None else value * slope + offset
            offset_spread = value * spread + offset_spread
        self.slope, self.spread = Table(slope.flatten(0, 1), grid), Table(spread.flatten(0, 1), grid)
        self.offset = None if offset is None else Table(offset.flatten(0, 1), grid)
        self.offset_spread = Table(offset_spread.flatten(0, 1), grid)

    def through(self, tangents: Patches, field: Tensor, constant: list[Tensor]) -> Patches | None:
        """Adds to the bound what ends here; what goes on, nothing where the gradient is known.

        ``field``: (groups, slots) example and row of each item.
        """
        rows = tangents.rows
        size = rows.abs()
        index = self.spread.index(tangents, field)
        constant.append(dot(size, self.offset_spread.read(tangents, index)))
        if self.offset is not None:
            constant.append(dot(rows, self.offset.read(tangents, index)))
        if self.decided:
            return None
        slope = self.slope.read(tangents) if self.shared else self.slope.read(tangents, index)
        return tangents.with_rows((rows * slope).addcmul_(size, self.spread.read(tangents, index)))


def bounded_entries(
    network: Network,
    functionals: Tensor,
    relaxed: Mapping[int, Relaxed],
    source: int,
    start: Interval,
    wanted: Tensor,
    how: Plan,
    *,
    memory: int,
    deadline: Deadline,
) -> Interval:
    """The interval of one node's gradient: entries ``wanted`` by the recursion, the others as in ``start``.

    Args:
        wanted: mask (batch, rows, size).
    """
    forward = PatchForward(network, functionals, relaxed, source)
    grid = forward.shapes[source]
    rows = forward.rows
    lower, upper = (by_position(end, grid).contiguous() for end in start)
    tile = pass_bytes(memory, functionals.device) // functionals.element_size()
    most = max(1, tile // (2 * how.costs.widest))
    positions = positions_of(torch.arange(lower.shape[1], device=lower.device), grid)
    kinds = positions.new_zeros(len(positions))
    for axis, n in enumerate(how.period):
        kinds = kinds * n + positions[:, axis] % n
    for group in grouped(by_position(wanted, grid), most=most, together=most, kinds=kinds):
        if deadline.passed():
            break
        low, high = forward.bounds(group, how.period)
        index = (group.example.unsqueeze(-1), group.position.unsqueeze(-1), group.slot)
        lower[index] = torch.where(group.filled, low, lower[index])
        upper[index] = torch.where(group.filled, torch.maximum(low, high), upper[index])
    return Interval(*(by_entry(end, grid, rows) for end in (lower, upper)))


def _residue(kind: int, period: tuple[int, ...]) -> tuple[int, ...]:
    residues: list[int] = []
    for n in reversed(period):
        residues.append(kind % n)
        kind //= n
    return tuple(reversed(residues))
