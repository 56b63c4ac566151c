"""What is known of windows before they are made is what they are."""

from __future__ import annotations

import pytest
import torch
from images import image_maps, single_entries
from nets import Builder

from lipcompare.network.grids import whole
from lipcompare.network.linear_maps import Conv, Dense, Scale
from lipcompare.network.patches import frame_after, push_back, push_on, window_costs
from lipcompare.network.patches.costs import frame_before

MAPS = image_maps()


@pytest.mark.parametrize("number", range(len(MAPS)))
def test_frames_are_those_of_the_windows(number: int) -> None:
    m, before, after = MAPS[number]
    back, on = single_entries(after)[0], single_entries(before)[0]
    assert frame_before(m, back.frame, before, after)[0] == push_back(m, back, before).frame
    assert frame_after(m, on.frame, before, after)[0] == push_on(m, on, after).frame


def test_operations_by_hand() -> None:
    """One row at an entry of the second of two convolutions: windows of 3 x 3 of 2 channels, of 5 x 5 of 1."""
    b = Builder(64, 0)
    first = Conv(b.weights(2, 1, 3, 3), (1, 8, 8), (1, 1), (1, 1), (1, 1))
    second = Conv(b.weights(2, 2, 3, 3), (2, 8, 8), (1, 1), (1, 1), (1, 1))
    b.affine((0, first))
    b.activate()
    node = b.affine((b.last, second))
    network = b.build()
    costs = window_costs(network, node)
    steps = 8 * (3 * 3 * 2 + 3 * 3 * 2 + 5 * 5)  # what comes out of the second, the activation, the first
    products = 2 * 3 * 3 * 2 * 64 // 64 + 9 * 2 * 3 * 3 * 1
    assert costs.windows == steps + products
    assert costs.images == 8 * (2 * 64 + 2 * 64 + 64) + 64 * (2 * 3 * 3 * 2) + 64 * (2 * 3 * 3)
    assert costs.widest == 9 * 9  # products of nine entries with nine taps, before they are summed
    ended = window_costs(network, node, ends=[2])
    assert ended.windows == 8 * (3 * 3 * 2 + 3 * 3 * 2) + 2 * 3 * 3 * 2


def test_a_scale_costs_what_its_window_has() -> None:
    scale = Scale(torch.ones(2 * 7 * 6, dtype=torch.float64))
    one = single_entries((2, 7, 6))[0].frame
    assert frame_before(scale, one, (2, 7, 6), (2, 7, 6))[0] == one
    dense = Dense(torch.ones(5, 84, dtype=torch.float64))
    frame, operations, widest = frame_before(dense, whole((5,)), (2, 7, 6), (5,))
    assert frame == whole((2, 7, 6)) and operations == 5 * 84 + 8 * 84 and widest == 84
