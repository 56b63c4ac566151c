"""Entries of images sorted by position, so that all at one position are one matrix."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lipcompare.network.grids import Grid


class Group(NamedTuple):
    """Positions with the same number of slots, some of which hold nothing.

    Attributes:
        example: (groups,).
        position: (groups,) position in the flattened image.
        slot: (groups, slots) what lies there, by its number at the position.
        filled: (groups, slots) which slots hold anything.
        kind: of the positions.
    """

    example: Tensor
    position: Tensor
    slot: Tensor
    filled: Tensor
    kind: int = 0


def by_position(values: Tensor, grid: Grid) -> Tensor:
    """(batch, rows, size) as (batch, positions, channels x rows), the row running fastest."""
    batch, rows, _ = values.shape
    images = values.reshape(batch, rows, grid[0], math.prod(grid[1:]))
    return images.permute(0, 3, 2, 1).flatten(2)


def by_entry(values: Tensor, grid: Grid, rows: int) -> Tensor:
    """Undo :func:`by_position`."""
    batch, positions, _ = values.shape
    return values.reshape(batch, positions, grid[0], rows).permute(0, 3, 2, 1).reshape(batch, rows, -1)


def grouped(wanted: Tensor, *, most: int, together: int, kinds: Tensor | None = None) -> Iterator[Group]:
    """What is wanted, in groups of positions.

    Args:
        wanted: mask (batch, positions, slots).
        most: entries in one group of positions.
        together: positions in one.
        kinds: (positions,) small numbers; a group holds positions of one kind.
    """
    batch, positions, _ = wanted.shape
    mask = wanted.flatten(0, 1)
    count = mask.sum(-1)
    slot = mask.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
    order = count.argsort(descending=True, stable=True)
    if kinds is None:
        kinds = order.new_zeros(positions)
    kind = kinds.repeat(batch)
    order = order[kind[order].argsort(stable=True)]
    # The one time that the numbers are needed here.
    counts, sorts = torch.stack([count[order], kind[order]]).cpu().numpy()
    ends = np.flatnonzero(np.diff(sorts)) + 1
    for begin, end in itertools.pairwise([0, *ends.tolist(), len(sorts)]):
        # Positions where nothing is wanted come last among those of their kind.
        start, last = begin, begin + int(np.count_nonzero(counts[begin:end]))
        while start < last:
            width = int(counts[start])
            slots = max(1, min(width, most))
            stop = min(start + max(1, min(most // slots, together)), last)
            some = order[start:stop]
            for first in range(0, width, slots):
                here = torch.arange(first, min(first + slots, width), device=mask.device)
                filled = here < count[some].unsqueeze(-1)
                yield Group(some // positions, some % positions, slot[some][:, here], filled, int(sorts[start]))
            start = stop
