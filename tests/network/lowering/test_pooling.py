"""Pooling, against torch."""

from __future__ import annotations

import lowered
import pytest
import torch
import torch.nn.functional as F

from lipcompare.network.lowering import pooling
from lipcompare.network.lowering.convolution import Windows


@pytest.mark.parametrize("count_padding", [True, False])
@pytest.mark.parametrize("ceil", [True, False])
def test_average_and_maximum_over_windows(ceil: bool, count_padding: bool) -> None:
    windows = Windows.of(2, 2, 1, 1)
    lowered.check(
        lambda b, x: pooling.average_pool(b, x, (3, 2), windows, ceil=ceil, count_padding=count_padding),
        lambda x: F.avg_pool2d(x, (3, 2), 2, 1, ceil_mode=ceil, count_include_pad=count_padding),
        (2, 4, 5),
    )
    lowered.check(
        lambda b, x: pooling.max_pool(b, x, (3, 2), windows, ceil=ceil),
        lambda x: F.max_pool2d(x, (3, 2), 2, 1, ceil_mode=ceil),
        (2, 4, 5),
    )


def test_windows_to_a_given_size() -> None:
    lowered.check(
        lambda b, x: pooling.adaptive_average_pool(b, x, (2, 3)), lambda x: F.adaptive_avg_pool2d(x, (2, 3)), (1, 5, 4)
    )
    lowered.check(
        lambda b, x: pooling.adaptive_max_pool(b, x, (2, None)), lambda x: F.adaptive_max_pool2d(x, (2, 4)), (1, 5, 4)
    )


@pytest.mark.parametrize("keepdim", [True, False])
def test_the_largest_over_axes(keepdim: bool) -> None:
    lowered.check(lambda b, x: pooling.max_axes(b, x, [2, 1], keepdim), lambda x: x.amax((2, 1), keepdim), (2, 3, 2))
    smallest = lambda b, x: pooling.max_axes(b, x, [-1], keepdim, smallest=True)  # noqa: E731
    lowered.check(smallest, lambda x: torch.amin(x, -1, keepdim), (2, 3))
