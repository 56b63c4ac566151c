"""Functionals of one node's value, each on a window of the node's image.

A row of a bound for one neuron touches the neuron's receptive field and nothing else. It is kept as that window, with
channels last, so that a convolution is a matrix product and ``kernel`` shifted sums. Where a window covers most of the
image, the whole image takes its place; values that are no images are images without positions. So there is one form,
and the node decides what it looks like.
"""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property

import torch
from torch import Tensor

from lipcompare.network.grids import Frame, Grid, whole

_WHOLE = 0.6
"""Share of the image from which on a window is the whole image: what is read for it then need not be gathered."""


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
        if frame is None or covers(frame, self.grid):
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
        return self.to_whole() if covers(self.frame, self.grid) else self


def covers(frame: Frame, grid: Grid) -> bool:
    """Whether windows that are no whole images cover so much of one that it should take their place."""
    return frame != whole(grid) and frame.volume >= _WHOLE * math.prod(grid[1:])


def positions_of(position: Tensor, grid: Grid) -> Tensor:
    """Positions (items, axes) of places (items,) in the flattened image."""
    places = position.new_empty(len(position), len(grid) - 1)
    for axis in range(len(grid) - 1, 0, -1):
        places[:, axis - 1] = position % grid[axis]
        position = position // grid[axis]
    return places
