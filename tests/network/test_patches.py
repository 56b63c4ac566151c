"""Patches say what the flat vectors say, for every map and every window."""

from __future__ import annotations

import math

import pytest
import torch
from images import image_maps

from lipcompare.network.grids import Grid
from lipcompare.network.linear_maps import LinearMap
from lipcompare.network.patches import Items, Patches, Table, positions_of, push_back, push_on

MAPS = image_maps()


def entries(grid: Grid, step: int = 1) -> tuple[Patches, torch.Tensor]:
    """One item per entry of an image and the same functionals as flat vectors."""
    entry = torch.arange(math.prod(grid))
    positions = math.prod(grid[1:])
    items = Items(positions_of(entry % positions, grid), grid[1:], torch.zeros_like(entry))
    patches = Patches.entries(items, entry // positions, grid, torch.float64)
    return patches, torch.eye(math.prod(grid), dtype=torch.float64)


@pytest.mark.parametrize("number", range(len(MAPS)))
def test_back_equals_the_adjoint(number: int) -> None:
    m, before, after = MAPS[number]
    patches, rows = entries(after)
    torch.testing.assert_close(push_back(m, patches, before).flat()[0], m.adjoint(rows), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("number", range(len(MAPS)))
def test_on_equals_the_map(number: int) -> None:
    m, before, after = MAPS[number]
    patches, rows = entries(before)
    torch.testing.assert_close(push_on(m, patches, after).flat()[0], m.forward(rows), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("number", range(len(MAPS)))
def test_windows_go_on_from_windows(number: int) -> None:
    """Twice through the same map and back: windows that are wider than one entry, some beyond the edge."""
    m, before, after = MAPS[number]
    patches, rows = entries(before)
    there = push_on(m, patches, after)
    both = push_back(m, there, before)
    torch.testing.assert_close(both.flat()[0], m.adjoint(m.forward(rows)), rtol=1e-12, atol=1e-12)
    total = (both + patches).flat()[0]
    torch.testing.assert_close(total, m.adjoint(m.forward(rows)) + rows, rtol=1e-12, atol=1e-12)


def test_a_table_is_read_under_every_window() -> None:
    m, before, after = MAPS[2]
    patches, rows = entries(after)
    back = push_back(m, patches, before)
    values = torch.randn(2, math.prod(before), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    field = torch.arange(len(rows)) % 2
    moved = Patches(back.values, Items(back.items.places, back.items.extent, field), back.frame, before, back.clean)
    read = (moved.cleaned().rows * Table(values, before).read(moved)).sum(-1)[0].flatten()
    torch.testing.assert_close(read, (m.adjoint(rows) * values[field]).sum(-1), rtol=1e-12, atol=1e-12)


def test_windows_stay_windows() -> None:
    """A small receptive field of a large image is never the whole image: otherwise nothing would be saved."""
    from lipcompare.network.linear_maps import Conv

    conv: LinearMap = Conv(torch.ones(2, 2, 3, 3, dtype=torch.float64), (2, 20, 20), (2, 2), (1, 1), (1, 1))
    patches, _ = entries((2, 10, 10))
    assert push_back(conv, patches, (2, 20, 20)).frame.size == (3, 3)
