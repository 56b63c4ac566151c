"""Convolutions, their transposes and padding, against torch."""

from __future__ import annotations

import lowered
import pytest
import torch
import torch.nn.functional as F

from lipcompare.network.lowering import convolution
from lipcompare.network.lowering.convolution import Windows

WEIGHT = torch.randn(4, 1, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
BIAS = torch.arange(4, dtype=torch.float64)


@pytest.mark.parametrize("padding", [0, (1, 2)])
@pytest.mark.parametrize("stride", [1, (2, 1)])
def test_convolution(stride: int | tuple[int, int], padding: int | tuple[int, int]) -> None:
    lowered.check(
        lambda b, x: convolution.convolution(b, x, WEIGHT, BIAS, Windows.of(2, stride, padding, 1), groups=2),
        lambda x: F.conv2d(x, WEIGHT, BIAS, stride, padding, groups=2),
        (2, 5, 4),
    )


def test_padding_that_differs_at_the_two_ends() -> None:
    windows = Windows((1, 1), (1, 0), (0, 2), (1, 1))
    lowered.check(
        lambda b, x: convolution.convolution(b, x, WEIGHT, None, windows, groups=2),
        lambda x: F.conv2d(F.pad(x, (0, 2, 1, 0)), WEIGHT, groups=2),
        (2, 4, 4),
    )


def test_transposed_convolution() -> None:
    weight = WEIGHT.reshape(2, 2, 3, 2)
    lowered.check(
        lambda b, x: convolution.transposed_convolution(b, x, weight, BIAS[:2], Windows.of(2, 2, 1, 1), (1, 0)),
        lambda x: F.conv_transpose2d(x, weight, BIAS[:2], stride=2, padding=1, output_padding=(1, 0)),
        (2, 3, 3),
    )


@pytest.mark.parametrize("size", [4, 5, 7])
def test_same_padding_keeps_the_size_over_the_stride(size: int) -> None:
    for stride in (1, 2, 3):
        (before,), (after,) = convolution.same_padding([size], [3], [stride], [2])
        assert 0 <= after - before <= 1
        out = (size + before + after - 5) // stride + 1
        assert out == -(-size // stride)
