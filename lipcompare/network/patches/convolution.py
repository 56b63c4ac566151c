"""Convolutions of functionals on windows: a matrix product, and sums of what it gives, shifted by the kernel's taps."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lipcompare.budget import fitting
from lipcompare.network.grids import Frame, Grid, clipped, reached, spread
from lipcompare.network.linear_maps import Conv
from lipcompare.network.patches.windows import Items, Patches

_CACHE = 2**22
"""Bytes of the products of a convolution that are made at a time on a CPU."""


def conv_adjoint(m: Conv, patches: Patches) -> Patches:
    """``A^T`` on weights of what a convolution writes, with zeros over the edges."""
    frame = spread(m, patches.frame)
    kernel = zip(m.weight.shape[2:], m.dilation, strict=True)
    starts = itertools.product(*[range(0, d * k, d) for k, d in kernel])
    out = _scattered(patches.values, _by_group(m), list(starts), m.stride, frame.size)
    return _cut(out, patches.items, frame, m.in_shape)


def _by_group(m: Conv, *, forward: bool = False) -> Tensor:
    """Filters (groups, channels that come in, taps x channels that go out) of one group, for either direction."""
    weight = m.weight.reshape(m.groups, -1, *m.weight.shape[1:]).flatten(3)
    weight = weight.permute(0, 2, 3, 1) if forward else weight.permute(0, 1, 3, 2)
    return weight.flatten(2)


def _scattered(
    values: Tensor, weight: Tensor, starts: list[tuple[int, ...]], stride: tuple[int, ...], size: tuple[int, ...]
) -> Tensor:
    """Every entry times all filters, added up where the taps put it.

    Args:
        values: (signs, items, *window, channels).
        weight: as from :func:`_by_group`.
        starts: where the taps put the window's first entry; the next ones follow at a distance of ``stride``.
        size: of the windows that come out.
    """
    if values.requires_grad:
        out: Tensor = _Scatter.apply(values, weight, starts, stride, size)  # type: ignore[no-untyped-call]
        return out
    return _scattered_sums(values, weight, starts, stride, size)


class _Scatter(torch.autograd.Function):
    """:func:`_scattered` with its derivative: the same taps gathered, which autograd would do by copies of copies."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        weight: Tensor,
        starts: list[tuple[int, ...]],
        stride: tuple[int, ...],
        size: tuple[int, ...],
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.how = (starts, stride, values.shape)
        return _scattered_sums(values.detach(), weight, starts, stride, size)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (weight,) = ctx.saved_tensors
        starts, stride, shape = ctx.how
        window = shape[2:-1]
        taps = [
            gradient[
                (
                    slice(None),
                    slice(None),
                    *(slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(start, window, stride, strict=True)),
                )
            ]
            for start in starts
        ]
        groups = weight.shape[0]
        rows = torch.stack(taps, -2).reshape(-1, len(starts), groups, weight.shape[2] // len(starts))
        found = rows.permute(2, 0, 1, 3).flatten(2) @ weight.transpose(1, 2)
        return found.transpose(0, 1).reshape(shape), None, None, None, None


def _scattered_sums(
    values: Tensor, weight: Tensor, starts: list[tuple[int, ...]], stride: tuple[int, ...], size: tuple[int, ...]
) -> Tensor:
    """:func:`_scattered` without its derivative."""
    lead, window, taps = values.shape[:2], values.shape[2:-1], len(starts)
    channels = weight.shape[0] * weight.shape[2] // taps
    values = values.flatten(0, 1)
    if math.prod(window) == 1 and math.prod(size) == taps:
        # One entry each: the taps lie side by side, in their order or the other way round.
        flat = _products(values, weight, taps).reshape(-1, taps, channels)
        flat = flat.flip(1) if taps > 1 and sum(starts[0]) > 0 else flat
        return flat.view(*lead, *size, channels)
    out = values.new_zeros(values.shape[0], *size, channels)
    each = math.prod(window) * taps * channels * values.element_size()
    for some, there in zip(*(v.split(_together(each, values)) for v in (values, out)), strict=True):
        flat = _products(some, weight, taps).reshape(-1, *window, taps, channels)
        for tap, start in enumerate(starts):
            axes = zip(start, window, stride, strict=True)
            there[(slice(None), *(slice(a, a + (n - 1) * s + 1, s) for a, n, s in axes))] += flat[..., tap, :]
    return out.view(*lead, *size, channels)


def _products(values: Tensor, weight: Tensor, taps: int) -> Tensor:
    """Every entry (items, *window, channels) times all filters: (entries, taps x channels that go out)."""
    rows, groups = values.reshape(-1, values.shape[-1]), weight.shape[0]
    if groups == 1:
        return rows @ weight[0]
    flat = (rows.view(len(rows), groups, -1).transpose(0, 1) @ weight).transpose(0, 1)
    return flat.reshape(len(rows), groups, taps, -1).transpose(1, 2).flatten(1)


def _together(bytes_each: int, like: Tensor) -> int:
    """How many items' products to make at a time: on a CPU they are summed up while they are in its cache."""
    return fitting(_CACHE if like.device.type == "cpu" else 2**62, bytes_each)


def _cut(out: Tensor, items: Items, frame: Frame, grid: Grid) -> Patches:
    """Patches of these windows, without what lies over the edge where they do not move."""
    cut = clipped(frame, grid[1:])
    if cut != frame:
        axes = zip(frame.offset, cut.offset, cut.size, strict=True)
        out = out[(slice(None), slice(None), *(slice(b - a, b - a + n) for a, b, n in axes))].contiguous()
    return Patches(out, items, cut, grid, cut.inside(grid[1:], items.extent))


def conv_forward(m: Conv, patches: Patches) -> Patches:
    """``A`` on tangents of what a convolution reads, with zeros over the edges."""
    frame = reached(m, patches.frame)
    if frame is None:  # strides that do not divide the windows' steps
        patches = patches.to_whole()
        frame = reached(m, patches.frame)
        assert frame is not None
    if max(m.stride) == 1:
        # The first tap reaches furthest.
        backwards = [range(d * (k - 1), -1, -d) for k, d in zip(m.weight.shape[2:], m.dilation, strict=True)]
        starts = list(itertools.product(*backwards))
        out = _scattered(patches.values, _by_group(m, forward=True), starts, m.stride, frame.size)
        return _cut(out, patches.items, frame, m.out_shape)
    return _strided(m, patches, clipped(frame, m.out_shape[1:]))


def _strided(m: Conv, patches: Patches, frame: Frame) -> Patches:
    """``A`` as one product with a column of the input's entries for each entry of windows ``frame``."""
    values = patches.values
    kernel = tuple(m.weight.shape[2:])
    # The rows of the input that the windows read: some of them may lie outside of what is there, and are zero.
    axes = list(zip(frame.offset, frame.size, kernel, m.stride, m.padding, m.dilation, patches.frame.offset,
                    patches.frame.size, strict=True))  # fmt: skip
    starts = [q * s - p - o for q, _, _, s, p, _, o, _ in axes]
    lengths = [(n - 1) * s + d * (k - 1) + 1 for _, n, k, s, _, d, _, _ in axes]
    pads = [(-a, a + length - n) for a, length, (*_, n) in zip(starts, lengths, axes, strict=True)]
    padded = F.pad(values, [w for pad in reversed([*pads, (0, 0)]) for w in pad])
    strides = padded.stride()
    channels = values.shape[-1]
    spatial = strides[2:-1]
    view = padded.as_strided(
        (*padded.shape[:2], *frame.size, *kernel, channels),
        (
            *strides[:2],
            *(t * s for t, s in zip(spatial, m.stride, strict=True)),
            *(t * d for t, d in zip(spatial, m.dilation, strict=True)),
            strides[-1],
        ),
    )
    out = _windows_product(view.reshape(-1, math.prod(kernel), channels), m)
    inside = frame.inside(m.out_shape[1:], patches.items.extent)
    return Patches(out.view(*values.shape[:2], *frame.size, m.out_shape[0]), patches.items, frame, m.out_shape, inside)


def _windows_product(columns: Tensor, m: Conv) -> Tensor:
    """``columns`` (rows, taps, in channels) times the filters: (rows, out channels)."""
    rows = columns.shape[0]
    weight = m.weight.reshape(m.groups, -1, *m.weight.shape[1:]).movedim(2, -1)
    weight = weight.reshape(m.groups, weight.shape[1], -1)
    if m.groups == 1:
        # Few output channels and many rows: this order of the factors is twice as fast on a CPU.
        return (weight[0] @ columns.flatten(1).T).T.contiguous()
    grouped = columns.view(rows, columns.shape[1], m.groups, -1).permute(2, 0, 1, 3).flatten(2)
    return (grouped @ weight.transpose(1, 2)).transpose(0, 1).reshape(rows, -1).contiguous()
