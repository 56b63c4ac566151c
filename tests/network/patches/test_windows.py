"""Functionals on windows are the same as flat vectors: sums, edges, and whole images in their place."""

from __future__ import annotations

import math

import pytest
import torch
from images import single_entries

from lipcompare.network.grids import Frame, Grid, whole
from lipcompare.network.patches import Items, Patches, positions_of

GRID: Grid = (2, 4, 5)
SIZE = math.prod(GRID)


def on_windows(offset: tuple[int, int], size: tuple[int, int], *, clean: bool = False) -> Patches:
    """A window of numbers for each entry of an image; over the edge there are numbers as well unless ``clean``."""
    items = single_entries(GRID)[0].items
    values = torch.randn(1, items.count, *size, GRID[0], generator=torch.Generator().manual_seed(0)).double()
    patches = Patches(values, items, Frame(offset, (1, 1), size), GRID, clean=False)
    return patches.cleaned() if clean else patches


def flat_by_hand(patches: Patches) -> torch.Tensor:
    """(items, size): entry by entry, what lies over the edge left out."""
    out = torch.zeros(patches.items.count, *GRID, dtype=torch.float64)
    (o1, o2), (n1, n2) = patches.frame.offset, patches.frame.size
    for item, (y, x) in enumerate(patches.items.places.tolist()):
        for i in range(n1):
            for j in range(n2):
                a, b = y + o1 + i, x + o2 + j
                if 0 <= a < GRID[1] and 0 <= b < GRID[2]:
                    out[item, :, a, b] = patches.values[0, item, i, j]
    return out.flatten(1)


@pytest.mark.parametrize(
    ("offset", "size"), [((0, 0), (1, 1)), ((-1, 0), (2, 3)), ((-1, -1), (3, 3)), ((2, -2), (1, 2))]
)
def test_what_lies_over_the_edge_is_dropped(offset: tuple[int, int], size: tuple[int, int]) -> None:
    patches = on_windows(offset, size)
    assert torch.equal(patches.flat()[0], flat_by_hand(patches))
    clean = patches.cleaned()
    assert clean.clean and clean.frame == patches.frame and torch.equal(clean.flat(), patches.flat())
    outside = clean.index == math.prod(GRID[1:])
    assert bool((clean.values.view(-1, outside.shape[1], GRID[0])[outside] == 0).all())


def test_sums_are_on_windows_that_cover_both() -> None:
    first, second = on_windows((-1, 0), (2, 1)), on_windows((0, 0), (1, 2))
    total = first + second
    assert total.frame == Frame((-1, 0), (1, 1), (2, 2)) and not total.clean
    assert torch.equal(total.flat(), first.flat() + second.flat())
    same = first.cleaned() + on_windows((-1, 0), (2, 1), clean=True)
    assert same.frame == first.frame and same.clean
    large = first + on_windows((-2, -2), (4, 4))
    assert large.is_whole and torch.equal(large.flat(), first.flat() + on_windows((-2, -2), (4, 4)).flat())


@pytest.mark.parametrize(("size", "settles"), [((3, 4), True), ((3, 3), False)])
def test_windows_that_cover_three_fifths_of_the_image_become_it(size: tuple[int, int], settles: bool) -> None:
    patches = on_windows((0, 0), size)
    settled = patches.settled()
    assert settled.is_whole == settles and torch.equal(settled.flat()[0], flat_by_hand(patches))


def test_flat_vectors_there_and_back() -> None:
    items = single_entries(GRID)[0].items
    flat = torch.arange(2.0 * items.count * SIZE, dtype=torch.float64).view(2, items.count, SIZE)
    patches = Patches.from_flat(flat, items, GRID)
    assert patches.frame == whole(GRID) and torch.equal(patches.flat(), flat)


def test_items_of_a_group_follow_each_other() -> None:
    """Two channels at each of two places, asked for in one group each."""
    position, channel = torch.tensor([7, 13]), torch.tensor([1, 0, 0, 1])
    places = positions_of(position, GRID)
    assert places.tolist() == [[1, 2], [2, 3]]
    patches = Patches.entries(
        Items(places, GRID[1:], torch.zeros(2, dtype=torch.int64), 2), channel, GRID, torch.float64
    )
    at = channel * math.prod(GRID[1:]) + position.repeat_interleave(2)
    assert torch.equal(patches.flat()[0], torch.eye(SIZE, dtype=torch.float64)[at])
