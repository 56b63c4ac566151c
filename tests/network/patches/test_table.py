"""Values read by windows are those under the windows."""

from __future__ import annotations

import math

import torch
from images import image_maps, single_entries

from lipcompare.network.patches import Items, Patches, Table, push_back

MAPS = image_maps()


def test_a_table_is_read_under_every_window() -> None:
    m, before, after = MAPS[2]
    patches, rows = single_entries(after)
    back = push_back(m, patches, before)
    values = torch.randn(2, math.prod(before), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    field = torch.arange(len(rows)) % 2
    moved = Patches(back.values, Items(back.items.places, back.items.extent, field), back.frame, before, back.clean)
    read = (moved.cleaned().rows * Table(values, before).read(moved)).sum(-1)[0].flatten()
    torch.testing.assert_close(read, (m.adjoint(rows) * values[field]).sum(-1), rtol=1e-12, atol=1e-12)
