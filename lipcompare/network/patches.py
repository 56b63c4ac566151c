"""Linear functionals of a network's values that live on windows of images, and linear maps on them.

A row of a bound for one neuron touches the neuron's receptive field and nothing else. It is kept as that window, with
channels last, so that a convolution is a matrix product and ``kernel`` shifted sums. Where a window covers most of the
image, the whole image takes its place; values that are no images are images without positions. So there is one form,
and the node decides what it looks like.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lipcompare.budget import fitting
from lipcompare.network.compose import cost
from lipcompare.network.graph import Activate, Affine, Network, fold_backward
from lipcompare.network.grids import Frame, Grid, between, clipped, factors, grids, reached, spread, whole
from lipcompare.network.linear_maps import Conv, Identity, LinearMap, Scale, Transposed

_WHOLE = 0.6
"""Share of the image from which on a window is the whole image: what is read for it then need not be gathered."""

_CACHE = 2**22
"""Bytes of the products of a convolution that are made at a time on a CPU."""

_PASS = 8
"""Multiply-adds that take as long as what is done to one entry between two products."""


@dataclasses.dataclass(frozen=True, eq=False)
class Items:
    """The neurons, or whatever else, that functionals belong to: as many at each of some places.

    Attributes:
        places: (groups, axes) position of each group in its own image, int64.
        extent: positions per axis; all places lie below.
        field: (groups,) which of the fields of a :class:`Table` each reads, int64.
        slots: items in each group; those of one group follow each other.
    """

    places: Tensor
    extent: tuple[int, ...]
    field: Tensor
    slots: int = 1
    _under: dict[tuple[Frame, Grid], Tensor] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def under(self, frame: Frame, grid: Grid) -> Tensor:
        """(groups, positions of a window): where in a flattened image windows lie; over the edge, past its end."""
        if (frame, grid) not in self._under:
            self._under[frame, grid] = self._index(frame, grid[1:])
        return self._under[frame, grid]

    def _index(self, frame: Frame, spatial: tuple[int, ...]) -> Tensor:
        flat = self.places.new_zeros(self.groups, 1)
        good = torch.ones_like(flat, dtype=torch.bool)
        for axis, (o, s, n, m) in enumerate(zip(frame.offset, frame.step, frame.size, spatial, strict=True)):
            at = torch.arange(o, o + n, device=flat.device).expand(self.groups, n)
            at = at + s * self.places[:, axis : axis + 1] if s else at
            fits = (at >= 0) & (at < m)
            flat = (flat.unsqueeze(-1) * m + at.unsqueeze(1)).flatten(1)
            good = (good.unsqueeze(-1) & fits.unsqueeze(1)).flatten(1)
        return torch.where(good, flat, math.prod(spatial))

    @property
    def groups(self) -> int:
        return int(self.field.shape[0])

    @property
    def count(self) -> int:
        return self.groups * self.slots


@dataclasses.dataclass(frozen=True, eq=False)
class Patches:
    """Weights on one node's value, of signs x items.

    Attributes:
        values: (signs, items, *window, channels), what lies over the edge of the image means nothing unless ``clean``.
        frame: where the windows lie, given the items' places.
        grid: of the node's value.
        clean: whether entries over the edge are zero.
    """

    values: Tensor
    items: Items
    frame: Frame
    grid: Grid
    clean: bool = True

    @cached_property
    def is_whole(self) -> bool:
        return self.frame == whole(self.grid)

    def with_values(self, values: Tensor, *, clean: bool = True) -> Patches:
        """The same windows with other values."""
        return dataclasses.replace(self, values=values, clean=clean)

    @property
    def rows(self) -> Tensor:
        """The values as (signs, groups, slots, entries of a window)."""
        return self.values.view(-1, self.items.groups, self.items.slots, self.frame.volume * self.grid[0])

    def with_rows(self, rows: Tensor) -> Patches:
        """The same windows with other :attr:`rows`; clean only if these are."""
        return self.with_values(rows.view_as(self.values))

    @property
    def index(self) -> Tensor:
        """(groups, positions of the window), see :meth:`Items.under`."""
        return self.items.under(self.frame, self.grid)

    def cleaned(self) -> Patches:
        """The same with zeros over the edges."""
        if self.clean:
            return self
        if self.frame.inside(self.grid[1:], self.items.extent):
            return self.with_values(self.values)
        mask = (self.index < math.prod(self.grid[1:])).to(self.values.dtype)
        by_group = self.values.view(-1, self.items.groups, self.items.slots, mask.shape[1], self.grid[0])
        return self.with_values((by_group * mask.view(1, -1, 1, mask.shape[1], 1)).view_as(self.values))

    def to_whole(self) -> Patches:
        """The same on the whole image."""
        if self.is_whole:
            return self
        channels, *spatial = self.grid
        clean = self.cleaned()
        positions = math.prod(spatial)
        rows = torch.arange(self.items.count, device=self.index.device).unsqueeze(-1) * (positions + 1)
        # What lies over the edge goes to one more position, which is cut off.
        rows = rows + self.index.repeat_interleave(self.items.slots, 0)
        signs = self.values.shape[0]
        out = self.values.new_zeros(signs, self.items.count * (positions + 1), channels)
        out.index_copy_(1, rows.flatten(), clean.values.reshape(signs, -1, channels))
        out = out.view(signs, self.items.count, positions + 1, channels)[:, :, :positions]
        return Patches(
            out.reshape(signs, self.items.count, *spatial, channels), self.items, whole(self.grid), self.grid
        )

    def flat(self) -> Tensor:
        """(signs, items, size) in the order of the node's flat vector."""
        values = self.to_whole().values
        return values.movedim(-1, 2).flatten(2)

    @classmethod
    def from_flat(cls, values: Tensor, items: Items, grid: Grid) -> Patches:
        """From (signs, items, size) in the order of the node's flat vector."""
        images = values.reshape(*values.shape[:2], *grid).movedim(2, -1)
        return cls(images.contiguous(), items, whole(grid), grid)

    @classmethod
    def entries(
        cls, items: Items, channel: Tensor, grid: Grid, dtype: torch.dtype, frame: Frame | None = None
    ) -> Patches:
        """Weight 1 on channel (items,) at each item's own place, or where the ``frame`` of one entry has it."""
        axes = len(grid) - 1
        # one_hot would look at the channels first.
        values = (channel.unsqueeze(-1) == torch.arange(grid[0], device=channel.device)).to(dtype)
        frame = frame or Frame((0,) * axes, (1,) * axes, (1,) * axes)
        return cls(values.reshape(1, items.count, *(1,) * axes, grid[0]), items, frame, grid)

    def __add__(self, other: Patches) -> Patches:
        """The sum, on windows that cover both."""
        frame = self.frame.union(other.frame)
        if frame is None or _covers(frame, self.grid):
            first, second = self.to_whole(), other.to_whole()
            return first.with_values(first.values + second.values)
        if frame == self.frame == other.frame:
            return self.with_values(self.values + other.values, clean=self.clean and other.clean)
        signs = max(self.values.shape[0], other.values.shape[0])
        out = self.values.new_zeros(signs, self.items.count, *frame.size, self.grid[0])
        for term in (self, other):
            window = tuple(
                slice(o - a, o - a + n)
                for o, n, a in zip(term.frame.offset, term.frame.size, frame.offset, strict=True)
            )
            out[(slice(None), slice(None), *window)] += term.values
        return Patches(out, self.items, frame, self.grid, self.clean and other.clean)

    def settled(self) -> Patches:
        """The same on the whole image if the windows cover most of it."""
        return self.to_whole() if _covers(self.frame, self.grid) else self


class Table:
    """Values of one node for several fields (examples, or examples and rows), to be read by windows.

    Over the edges of the image everything is zero.
    """

    def __init__(self, values: Tensor, grid: Grid) -> None:
        """``values``: (fields, size)."""
        channels, *spatial = grid
        self.fields, self.positions, self.channels = int(values.shape[0]), math.prod(spatial), channels
        rows = values.reshape(self.fields, channels, self.positions).transpose(1, 2)
        # One more position per field holds the zeros.
        self.rows = F.pad(rows, (0, 0, 0, 1)).reshape(-1, channels)

    def index(self, patches: Patches, field: Tensor | None = None) -> Tensor | None:
        """Rows that the patches read, for :meth:`read`; None where all read the whole of the only field."""
        if patches.is_whole and self.fields == 1:
            return None
        field = patches.items.field.unsqueeze(-1) if field is None else field
        return field.unsqueeze(-1) * (self.positions + 1) + patches.index.unsqueeze(1)

    def read(self, patches: Patches, index: Tensor | None = None) -> Tensor:
        """(groups or 1, slots or 1, entries of a window): what lies under each window.

        ``index``: what :meth:`index` of this table, or of one of the same shape, says; with it, fields are as given
        there: (groups, slots), and otherwise those of the groups.
        """
        index = self.index(patches) if index is None else index
        if index is None:
            return self.rows[:-1].reshape(1, 1, -1)
        return self.rows.index_select(0, index.flatten()).view(*index.shape[:2], -1)

    def alike(self, patches: Patches) -> Tensor:
        """The same of a table with one field, whatever the fields of the items."""
        return self.read(patches, self.index(patches, patches.items.field.new_zeros(patches.items.groups, 1)))


def dot(weights: Tensor, values: Tensor) -> Tensor:
    """(signs, groups, slots, n) times (groups or 1, slots or 1, n): (signs, items)."""
    signs, n = weights.shape[0], weights.shape[-1]
    if values.shape[:2] == (1, 1):
        return (weights.reshape(-1, n) @ values.view(n)).view(signs, -1)
    if values.shape[1] == 1:
        return (weights @ values.transpose(1, 2)).flatten(1)
    each = weights.view(signs, -1, n).transpose(0, 1) @ values.view(-1, n, 1)
    return each.squeeze(-1).T


def push_back(m: LinearMap, patches: Patches, grid: Grid) -> Patches:
    """``A^T`` on weights: from a value that ``m`` writes to the one of shape ``grid`` that it reads."""
    shapes = between(m, grid, patches.grid)
    parts = factors(m)
    for part, shape in zip(reversed(parts), reversed(shapes[:-1]), strict=True):
        patches = _adjoint(part, patches, shape).settled()
    return patches


def push_on(m: LinearMap, patches: Patches, grid: Grid) -> Patches:
    """``A`` on tangents: from a value that ``m`` reads to the one of shape ``grid`` that it writes."""
    return push_back(Transposed(m), patches, grid)


def _covers(frame: Frame, grid: Grid) -> bool:
    return frame != whole(grid) and frame.volume >= _WHOLE * math.prod(grid[1:])


def _adjoint(m: LinearMap, patches: Patches, grid: Grid) -> Patches:
    """``A^T`` for a map that is no product."""
    if isinstance(m, Transposed):
        return _forward(m.base, patches, grid)
    if isinstance(m, Identity) and grid == patches.grid:
        return patches
    if isinstance(m, Scale) and grid == patches.grid:
        return _scaled(m, patches)
    if isinstance(m, Conv) and m.in_shape == grid and m.out_shape == patches.grid:
        return _conv_adjoint(m, patches.cleaned())
    return Patches.from_flat(m.adjoint(patches.flat()), patches.items, grid)


def _forward(m: LinearMap, patches: Patches, grid: Grid) -> Patches:
    """``A`` for a map that is no product."""
    if isinstance(m, Transposed):
        return _adjoint(m.base, patches, grid)
    if isinstance(m, Identity) and grid == patches.grid:
        return patches
    if isinstance(m, Scale) and grid == patches.grid:
        return _scaled(m, patches)
    if isinstance(m, Conv) and m.in_shape == patches.grid and m.out_shape == grid:
        clean = patches.cleaned()
        frame = reached(m, patches.frame)
        return (
            _conv_forward(m, clean, frame)
            if frame is not None
            else _conv_forward(m, clean.to_whole(), clipped(reached(m, whole(patches.grid)) or whole(grid), grid[1:]))
        )
    return Patches.from_flat(m.forward(patches.flat()), patches.items, grid)


def _scaled(m: Scale, patches: Patches) -> Patches:
    return patches.with_rows(patches.rows * Table(m.factor.unsqueeze(0), patches.grid).alike(patches))


def _conv_adjoint(m: Conv, patches: Patches) -> Patches:
    frame = spread(m, patches.frame)
    kernel = zip(m.weight.shape[2:], m.dilation, strict=True)
    starts = itertools.product(*[range(0, d * k, d) for k, d in kernel])
    out = _scattered(patches.values, _by_group(m), list(starts), m.stride, frame.size)
    return _cut(out, patches.items, frame, m.in_shape)


def _by_group(m: Conv, *, forward: bool = False) -> Tensor:
    """Filters (groups, channels that come in, taps x channels that go out) of one group, for either direction."""
    weight = m.weight.reshape(m.groups, -1, *m.weight.shape[1:]).flatten(3)
    weight = weight.permute(0, 2, 3, 1) if forward else weight.permute(0, 1, 3, 2)
    return weight.flatten(2)


def _scattered(
    values: Tensor, weight: Tensor, starts: list[tuple[int, ...]], stride: tuple[int, ...], size: tuple[int, ...]
) -> Tensor:
    """Every entry times all filters, added up where the taps put it.

    Args:
        values: (signs, items, *window, channels).
        weight: as from :func:`_by_group`.
        starts: where the taps put the window's first entry; the next ones follow at a distance of ``stride``.
        size: of the windows that come out.
    """
    if values.requires_grad:
        out: Tensor = _Scatter.apply(values, weight, starts, stride, size)  # type: ignore[no-untyped-call]
        return out
    return _scattered_sums(values, weight, starts, stride, size)


class _Scatter(torch.autograd.Function):
    """:func:`_scattered` with its derivative: the same taps gathered, which autograd would do by copies of copies."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        weight: Tensor,
        starts: list[tuple[int, ...]],
        stride: tuple[int, ...],
        size: tuple[int, ...],
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.how = (starts, stride, values.shape)
        return _scattered_sums(values.detach(), weight, starts, stride, size)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (weight,) = ctx.saved_tensors
        starts, stride, shape = ctx.how
        window = shape[2:-1]
        taps = [
            gradient[
                (
                    slice(None),
                    slice(None),
                    *(slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(start, window, stride, strict=True)),
                )
            ]
            for start in starts
        ]
        groups = weight.shape[0]
        rows = torch.stack(taps, -2).reshape(-1, len(starts), groups, weight.shape[2] // len(starts))
        found = rows.permute(2, 0, 1, 3).flatten(2) @ weight.transpose(1, 2)
        return found.transpose(0, 1).reshape(shape), None, None, None, None


def _scattered_sums(
    values: Tensor, weight: Tensor, starts: list[tuple[int, ...]], stride: tuple[int, ...], size: tuple[int, ...]
) -> Tensor:
    """:func:`_scattered` without its derivative."""
    lead, window, taps = values.shape[:2], values.shape[2:-1], len(starts)
    channels = weight.shape[0] * weight.shape[2] // taps
    values = values.flatten(0, 1)
    if math.prod(window) == 1 and math.prod(size) == taps:
        # One entry each: the taps lie side by side, in their order or the other way round.
        flat = _products(values, weight, taps).reshape(-1, taps, channels)
        flat = flat.flip(1) if taps > 1 and sum(starts[0]) > 0 else flat
        return flat.view(*lead, *size, channels)
    out = values.new_zeros(values.shape[0], *size, channels)
    each = math.prod(window) * taps * channels * values.element_size()
    for some, there in zip(*(v.split(_together(each, values)) for v in (values, out)), strict=True):
        flat = _products(some, weight, taps).reshape(-1, *window, taps, channels)
        for tap, start in enumerate(starts):
            axes = zip(start, window, stride, strict=True)
            there[(slice(None), *(slice(a, a + (n - 1) * s + 1, s) for a, n, s in axes))] += flat[..., tap, :]
    return out.view(*lead, *size, channels)


def _products(values: Tensor, weight: Tensor, taps: int) -> Tensor:
    """Every entry (items, *window, channels) times all filters: (entries, taps x channels that go out)."""
    rows, groups = values.reshape(-1, values.shape[-1]), weight.shape[0]
    if groups == 1:
        return rows @ weight[0]
    flat = (rows.view(len(rows), groups, -1).transpose(0, 1) @ weight).transpose(0, 1)
    return flat.reshape(len(rows), groups, taps, -1).transpose(1, 2).flatten(1)


def _together(bytes_each: int, like: Tensor) -> int:
    """How many items' products to make at a time: on a CPU they are summed up while they are in its cache."""
    return fitting(_CACHE if like.device.type == "cpu" else 2**62, bytes_each)


def _cut(out: Tensor, items: Items, frame: Frame, grid: Grid) -> Patches:
    """Patches of these windows, without what lies over the edge where they do not move."""
    cut = clipped(frame, grid[1:])
    if cut != frame:
        axes = zip(frame.offset, cut.offset, cut.size, strict=True)
        out = out[(slice(None), slice(None), *(slice(b - a, b - a + n) for a, b, n in axes))].contiguous()
    return Patches(out, items, cut, grid, cut.inside(grid[1:], items.extent))


def _conv_forward(m: Conv, patches: Patches, frame: Frame) -> Patches:
    if max(m.stride) == 1:
        frame = reached(m, patches.frame) or frame
        backwards = [range(d * (k - 1), -1, -d) for k, d in zip(m.weight.shape[2:], m.dilation, strict=True)]
        out = _scattered(
            patches.values, _by_group(m, forward=True), list(itertools.product(*backwards)), m.stride, frame.size
        )
        return _cut(out, patches.items, frame, m.out_shape)
    frame = clipped(frame, m.out_shape[1:])
    values = patches.values
    kernel = tuple(m.weight.shape[2:])
    # The rows of the input that the windows read: some of them may lie outside of what is there, and are zero.
    axes = list(zip(frame.offset, frame.size, kernel, m.stride, m.padding, m.dilation, patches.frame.offset,
                    patches.frame.size, strict=True))  # fmt: skip
    starts = [q * s - p - o for q, _, _, s, p, _, o, _ in axes]
    lengths = [(n - 1) * s + d * (k - 1) + 1 for _, n, k, s, _, d, _, _ in axes]
    pads = [(-a, a + length - n) for a, length, (*_, n) in zip(starts, lengths, axes, strict=True)]
    padded = F.pad(values, [w for pad in reversed([*pads, (0, 0)]) for w in pad])
    strides = padded.stride()
    channels = values.shape[-1]
    spatial = strides[2:-1]
    view = padded.as_strided(
        (*padded.shape[:2], *frame.size, *kernel, channels),
        (
            *strides[:2],
            *(t * s for t, s in zip(spatial, m.stride, strict=True)),
            *(t * d for t, d in zip(spatial, m.dilation, strict=True)),
            strides[-1],
        ),
    )
    out = _windows_product(view.reshape(-1, math.prod(kernel), channels), m)
    inside = frame.inside(m.out_shape[1:], patches.items.extent)
    return Patches(out.view(*values.shape[:2], *frame.size, m.out_shape[0]), patches.items, frame, m.out_shape, inside)


def _windows_product(columns: Tensor, m: Conv) -> Tensor:
    """``columns`` (rows, taps, in channels) times the filters: (rows, out channels)."""
    rows = columns.shape[0]
    weight = m.weight.reshape(m.groups, -1, *m.weight.shape[1:]).movedim(2, -1)
    weight = weight.reshape(m.groups, weight.shape[1], -1)
    if m.groups == 1:
        # Few output channels and many rows: this order of the factors is twice as fast on a CPU.
        return (weight[0] @ columns.flatten(1).T).T.contiguous()
    grouped = columns.view(rows, columns.shape[1], m.groups, -1).permute(2, 0, 1, 3).flatten(2)
    return (grouped @ weight.transpose(1, 2)).transpose(0, 1).reshape(rows, -1).contiguous()


def positions_of(position: Tensor, grid: Grid) -> Tensor:
    """Positions (items, axes) of places (items,) in the flattened image."""
    places = position.new_empty(len(position), len(grid) - 1)
    for axis in range(len(grid) - 1, 0, -1):
        places[:, axis - 1] = position % grid[axis]
        position = position // grid[axis]
    return places


class Costs(NamedTuple):
    """What one row takes that starts at a single entry of a node and goes back to the input."""

    windows: int  # multiply-adds on patches
    images: int  # multiply-adds on whole images
    widest: int  # entries of the widest tensor on the way


def window_costs(network: Network, node: int, ends: Collection[int] = ()) -> Costs:
    """Operations and memory per row of a backward pass, on patches and on whole images.

    ``ends``: activation nodes where the pass ends.

    An elementwise step counts as :data:`_PASS` multiply-adds per entry; gathering is part of that.
    """
    shapes = grids(network)
    axes = len(shapes[node]) - 1
    windows = images = 0
    widest = 1

    def activation(k: int, item: Activate, frame: Frame) -> Frame | None:
        nonlocal windows, images
        windows += _PASS * frame.volume * shapes[k][0]
        images += _PASS * item.size
        return None if k in ends else frame

    def affine(k: int, item: Affine, maps: Sequence[LinearMap], frame: Frame) -> list[Frame]:
        nonlocal windows, images, widest
        frames = []
        for p, m in zip(item.parents, maps, strict=True):
            before, operations, entries = frame_before(m, frame, shapes[p], shapes[k])
            frames.append(before)
            windows += operations
            images += frame_before(m, whole(shapes[k]), shapes[p], shapes[k])[1]
            widest = max(widest, entries)
        return frames

    def add(a: Frame, b: Frame) -> Frame:
        union = a.union(b)
        return union if union is not None else max(a, b, key=lambda f: f.volume)

    fold_backward(network, {node: Frame((0,) * axes, (1,) * axes, (1,) * axes)}, activation, affine, add=add)
    return Costs(windows, images, widest)


def frame_before(m: LinearMap, frame: Frame, grid: Grid, here: Grid) -> tuple[Frame, int, int]:
    """Where the patches lie that :func:`push_back` makes, its operations for one item and its largest tensor."""
    shapes = between(m, grid, here)
    operations, widest = 0, 1
    for factor, before, after in zip(reversed(factors(m)), reversed(shapes[:-1]), reversed(shapes[1:]), strict=True):
        share = min(1.0, frame.volume / max(1, math.prod(after[1:])))
        base = factor.base if isinstance(factor, Transposed) else factor
        earlier: Frame | None = None
        if isinstance(factor, (Identity, Scale)) and before == after:
            earlier = frame
        elif isinstance(base, Conv):
            taps, volume = math.prod(base.weight.shape[2:]), frame.volume
            if factor is base and (base.in_shape, base.out_shape) == (before, after):
                earlier = clipped(spread(base, frame), before[1:])
                widest = max(widest, volume * taps * before[0])
            elif factor is not base and (base.in_shape, base.out_shape) == (after, before):
                reach = reached(base, frame)
                earlier = None if reach is None else clipped(reach, before[1:])
                windows = volume * before[0] if max(base.stride) == 1 else (earlier or whole(before)).volume * after[0]
                widest = max(widest, windows * taps)
        if earlier is None or _covers(earlier, before):
            earlier = whole(before)
        frame = earlier
        operations += int(share * cost(factor)) + _PASS * frame.volume * before[0]
        widest = max(widest, frame.volume * before[0])
    return frame, operations, widest


def frame_after(m: LinearMap, frame: Frame, grid: Grid, there: Grid) -> tuple[Frame, int, int]:
    """The same for :func:`push_on`, from ``grid`` to ``there``."""
    return frame_before(Transposed(m), frame, there, grid)
