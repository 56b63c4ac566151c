"""Average pooling as convolutions or sums, max pooling as a tree of ReLUs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lipcompare.errors import InvalidInput
from lipcompare.network.linear_maps import Conv, Select, Transposed
from lipcompare.network.lowering.arithmetic import mean, multiply
from lipcompare.network.lowering.builder import Builder, Operand, Value, as_value, reshape, take
from lipcompare.network.lowering.convolution import Windows, pad
from lipcompare.network.lowering.piecewise import maximum_over

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def window_starts(n: int, kernel: int, stride: int, before: int, after: int, dilation: int, ceil: bool) -> Tensor:
    """First position of every window on an axis of length ``n``, counted from the first entry (negative in padding)."""
    span = n + before + after - dilation * (kernel - 1) - 1
    count = (math.ceil(span / stride) if ceil else span // stride) + 1
    if ceil and (count - 1) * stride >= n + before:
        count -= 1  # a window that starts beyond the data and the leading padding does not count
    if count < 1 or kernel < 1 or before < 0 or after < 0:
        raise InvalidInput(f"Windows of {kernel} do not fit into {n} entries: the input is too small for the model.")
    return torch.arange(count) * stride - before


def average_pool(
    b: Builder,
    x: Operand,
    kernel: Sequence[int],
    windows: Windows,
    *,
    ceil: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> Operand:
    """Average pooling of (..., C, *spatial).

    Args:
        ceil: windows may reach over the end of the padded data; what lies beyond is never counted.
        count_padding: whether padding counts in the average.
        divisor: divides every sum instead of the count.
    """
    x = as_value(b, x)
    rank = len(kernel)
    lead, spatial = x.shape[:-rank], x.shape[-rank:]
    b.require([math.prod(lead), *kernel])
    b.require([n + p + q for n, p, q in zip(spatial, windows.before, windows.after, strict=True)])
    starts = [
        window_starts(n, k, s, p, q, d, ceil)
        for n, k, s, p, q, d in zip(
            spatial, kernel, windows.stride, windows.before, windows.after, windows.dilation, strict=True
        )
    ]
    # Padding so that exactly these windows fit.
    ends = [
        int(first[-1]) + d * (k - 1) + 1 - n
        for first, n, k, d in zip(starts, spatial, kernel, windows.dilation, strict=True)
    ]
    counted = torch.ones((1, 1, *spatial), dtype=torch.float64)
    inside = [w for pair in zip(reversed(windows.before), reversed(windows.after), strict=True) for w in pair]
    counted = F.pad(counted, inside, value=1.0 if count_padding else 0.0)
    beyond = [w for e, q in zip(reversed(ends), reversed(windows.after), strict=True) for w in (0, e - q)]
    counted = F.pad(counted, beyond)
    ones = torch.ones((1, 1, *kernel), dtype=torch.float64)
    counts = _CONV[rank](counted, ones, None, windows.stride, 0, windows.dilation)
    if divisor is not None:
        counts = torch.full_like(counts, float(divisor))

    uniform = bool((counts == counts.reshape(-1)[0]).all())
    channels = math.prod(lead)
    symmetric = all(e <= p for e, p in zip(ends, windows.before, strict=True)) and all(
        (n + 2 * p - d * (k - 1) - 1) // s + 1 == len(first)
        for n, p, d, k, s, first in zip(
            spatial, windows.before, windows.dilation, kernel, windows.stride, starts, strict=True
        )
    )
    source, padding = x, windows.before
    if not symmetric:
        source = as_value(b, pad(b, x, windows.before, ends))
        padding = (0,) * rank
    weight = torch.full(
        (channels, 1, *kernel), float(1 / counts.reshape(-1)[0]) if uniform else 1.0, dtype=torch.float64
    )
    conv = Conv(weight, (channels, *source.shape[-rank:]), windows.stride, padding, windows.dilation, channels)
    y = b.affine([(source, conv)], (*lead, *conv.out_shape[1:]))
    return y if uniform else multiply(b, y, 1 / counts.reshape(counts.shape[2:]))


def adaptive_average_pool(b: Builder, x: Operand, sizes: Sequence[int | None]) -> Operand:
    """Average pooling to a given size; windows as torch defines them."""
    rank = len(sizes)
    spatial = x.shape[-rank:]
    out = [int(n) if s is None else int(s) for s, n in zip(sizes, spatial, strict=True)]
    if all(o == 1 for o in out):
        return mean(b, x, range(-rank, 0), keepdim=True)
    if all(n % o == 0 for n, o in zip(spatial, out, strict=True)):
        kernel = tuple(n // o for n, o in zip(spatial, out, strict=True))
        return average_pool(b, x, kernel, Windows.of(rank, kernel))
    for axis, size in zip(range(-rank, 0), out, strict=True):
        x = _adaptive_axis(b, as_value(b, x), axis, size)
    return x


def _adaptive_axis(b: Builder, x: Value, axis: int, size: int) -> Operand:
    """Adaptive averages along one axis: gather the entries of every window, then sum them."""
    n = x.shape[axis]
    bounds = [(k * n // size, -(-(k + 1) * n // size)) for k in range(size)]
    positions = torch.cat([torch.arange(first, last) for first, last in bounds])
    owner = torch.cat([torch.full((last - first,), k) for k, (first, last) in enumerate(bounds)])
    counts = torch.tensor([last - first for first, last in bounds], dtype=torch.float64)
    index = torch.arange(x.size).reshape(x.shape).index_select(axis, positions)
    shape = [*x.shape]
    shape[axis] = size
    target = torch.arange(math.prod(shape)).reshape(shape).index_select(axis, owner)
    gathered = as_value(b, take(b, x, index))
    summed = b.affine([(gathered, Transposed(Select(target.reshape(-1), math.prod(shape))))], shape)
    return multiply(b, summed, (1 / counts).reshape(-1, *(1,) * (-axis - 1)))


def max_pool(b: Builder, x: Operand, kernel: Sequence[int], windows: Windows, *, ceil: bool = False) -> Operand:
    """Max pooling of (..., *spatial), one axis after another.

    A maximum over a box of positions is a maximum over rows of maxima over columns; windows that overlap then share
    their partial maxima, so a 3x3 window of stride 1 takes 4 ReLUs and not 8.
    """
    x = as_value(b, x)
    rank = len(kernel)
    for i in reversed(range(rank)):
        axis = i - rank
        n = x.shape[axis]
        b.require([n + windows.before[i] + windows.after[i], kernel[i]])
        starts = window_starts(
            n, kernel[i], windows.stride[i], windows.before[i], windows.after[i], windows.dilation[i], ceil
        )
        x = _max_axis(b, x, axis, starts, kernel[i], windows.dilation[i])
    return x


def adaptive_max_pool(b: Builder, x: Operand, sizes: Sequence[int | None]) -> Operand:
    """Max pooling to a given size; windows as torch defines them."""
    x = as_value(b, x)
    rank = len(sizes)
    for axis, wanted in zip(range(-rank, 0), sizes, strict=True):
        n = x.shape[axis]
        size = n if wanted is None else int(wanted)
        first = torch.arange(size) * n // size
        last = -(-(torch.arange(size) + 1) * n // size)
        longest = int((last - first).max())
        positions = first[None, :] + torch.arange(longest)[:, None]
        x = _max_positions(b, x, axis, torch.where(positions < last, positions, -1))
    return x


def max_axes(b: Builder, x: Operand, axes: Sequence[int], keepdim: bool, *, smallest: bool = False) -> Operand:
    """Largest (or smallest) entry over whole axes."""
    rank = len(x.shape)
    gone = {a % rank for a in axes} if axes else set(range(rank))
    y: Operand = x
    for axis in gone:
        positions = torch.arange(x.shape[axis])[:, None]
        y = _max_positions(b, as_value(b, y), axis - rank, positions, smallest=smallest)
    kept = tuple(n for k, n in enumerate(y.shape) if keepdim or k not in gone)
    return reshape(y, kept)


def _max_axis(b: Builder, x: Value, axis: int, starts: Tensor, kernel: int, dilation: int) -> Value:
    positions = starts[None, :] + dilation * torch.arange(kernel)[:, None]
    inside = (positions >= 0) & (positions < x.shape[axis])
    return _max_positions(b, x, axis, torch.where(inside, positions, -1))


def _max_positions(b: Builder, x: Value, axis: int, positions: Tensor, *, smallest: bool = False) -> Value:
    """Maximum along ``axis``: output k is the largest entry at ``positions[:, k]``, where -1 is no entry."""
    index = torch.arange(x.size).reshape(x.shape)
    rows = []
    for row in positions:
        found = index.index_select(axis, row.clamp(min=0))
        mask = (row >= 0).reshape(-1, *(1,) * (-axis - 1))
        rows.append(torch.where(mask, found, -1))
    table = torch.stack(rows)
    return maximum_over(b, x, table, smallest=smallest)
