"""Maps on windows say what they say on flat vectors, for every map and every window."""

from __future__ import annotations

import pytest
import torch
from images import image_maps, single_entries

from lipcompare.network.linear_maps import Conv, LinearMap
from lipcompare.network.patches import push_back, push_on

MAPS = image_maps()


@pytest.mark.parametrize("number", range(len(MAPS)))
def test_back_equals_the_adjoint(number: int) -> None:
    m, before, after = MAPS[number]
    patches, rows = single_entries(after)
    torch.testing.assert_close(push_back(m, patches, before).flat()[0], m.adjoint(rows), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("number", range(len(MAPS)))
def test_on_equals_the_map(number: int) -> None:
    m, before, after = MAPS[number]
    patches, rows = single_entries(before)
    torch.testing.assert_close(push_on(m, patches, after).flat()[0], m.forward(rows), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("number", range(len(MAPS)))
def test_windows_go_on_from_windows(number: int) -> None:
    """Twice through the same map and back: windows that are wider than one entry, some beyond the edge."""
    m, before, after = MAPS[number]
    patches, rows = single_entries(before)
    there = push_on(m, patches, after)
    both = push_back(m, there, before)
    torch.testing.assert_close(both.flat()[0], m.adjoint(m.forward(rows)), rtol=1e-12, atol=1e-12)
    total = (both + patches).flat()[0]
    torch.testing.assert_close(total, m.adjoint(m.forward(rows)) + rows, rtol=1e-12, atol=1e-12)


def test_windows_stay_windows() -> None:
    """A small receptive field of a large image is never the whole image: otherwise nothing would be saved."""
    conv: LinearMap = Conv(torch.ones(2, 2, 3, 3, dtype=torch.float64), (2, 20, 20), (2, 2), (1, 1), (1, 1))
    patches, _ = single_entries((2, 10, 10))
    assert push_back(conv, patches, (2, 20, 20)).frame.size == (3, 3)
