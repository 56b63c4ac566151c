"""Networks on images for the tests of patches: every map that the importers make of convolutional layers."""

from __future__ import annotations

import math

import torch
from hypothesis import strategies as st
from nets import Builder

from lipcompare import Network
from lipcompare.network.grids import Grid
from lipcompare.network.linear_maps import Conv, Dense, Identity, LinearMap, Scale, Select, Transposed
from lipcompare.network.patches import Items, Patches, positions_of


@st.composite
def conv_networks(draw: st.DrawFn, largest: int = 220) -> Network:
    """Two to four layers on images of one or two axes and a dense layer: strides, padding, dilation, groups, transposed
    convolutions, residual sums, scaling, average and maximum pooling."""
    axes = draw(st.integers(1, 2))
    channels = draw(st.sampled_from([1, 2, 4]))
    grid = (channels, *(draw(st.integers(4, 9 if axes == 1 else 6)) for _ in range(axes)))
    b = Builder(math.prod(grid), draw(st.integers(0, 10**6)))
    for _ in range(draw(st.integers(2, 4))):
        kind = draw(st.sampled_from(["conv", "conv", "residual", "transposed", "scaled", "average", "maximum"]))
        if kind == "maximum" and grid[-1] >= 4:
            grid = _maximum(b, grid)
            continue
        start = b.last
        if kind == "average":
            weight = torch.full((grid[0], 1, *(2,) * axes), 0.5**axes, dtype=torch.float64)
            pool = Conv(weight, grid, (2,) * axes, (0,) * axes, (1,) * axes, groups=grid[0])
            grid = pool.out_shape
            b.affine((start, pool))
        elif kind == "transposed":
            out = (2, *(n + 1 for n in grid[1:]))
            base = Conv(b.weights(grid[0], 2, *(2,) * axes, scale=0.5), out, (1,) * axes, (0,) * axes, (1,) * axes)
            b.affine((start, Transposed(base)))
            grid = out
        else:
            m = _conv(draw, b, grid, keep=kind == "residual")
            terms: list[tuple[int, LinearMap]] = [(start, m)]
            if kind == "residual":
                if draw(st.booleans()):
                    b.affine((start, m))
                    b.activate()
                    terms = [(b.last, _conv(draw, b, grid, keep=True))]
                terms.append((start, Identity(math.prod(grid))))
            b.affine(*terms)
            grid = m.out_shape
            if kind == "scaled":
                b.affine((b.last, Scale(b.weights(math.prod(grid)))))
        if min(grid[1:]) < 2 or math.prod(grid) > largest:
            break
        b.activate(draw(st.sampled_from([0.0, 0.0, 0.2])))
    b.dense(4)
    b.activate()
    b.dense(2)
    return b.build()


def _conv(draw: st.DrawFn, b: Builder, grid: tuple[int, ...], *, keep: bool) -> Conv:
    axes = len(grid) - 1
    groups = draw(st.sampled_from([g for g in (1, 2, 4) if grid[0] % g == 0]))
    outs = grid[0] if keep else groups * draw(st.integers(1, 2))
    if keep:
        return Conv(b.weights(outs, grid[0] // groups, *(3,) * axes, scale=0.4), grid, (1,) * axes, (1,) * axes,
                    (1,) * axes, groups)  # fmt: skip
    kernel, stride, padding, dilation = [], [], [], []
    for n in grid[1:]:
        k = draw(st.integers(1, min(3, n)))
        d = draw(st.integers(1, 2)) if 2 * (k - 1) + 1 <= n else 1
        kernel.append(k)
        dilation.append(d)
        stride.append(draw(st.integers(1, 2)))
        padding.append(draw(st.integers(0, 1)))
    weight = b.weights(outs, grid[0] // groups, *kernel, scale=0.5)
    return Conv(weight, grid, tuple(stride), tuple(padding), tuple(dilation), groups)


def _maximum(b: Builder, grid: tuple[int, ...]) -> tuple[int, ...]:
    """The larger one of neighbours along the last axis: ``b + relu(a - b)``."""
    index = torch.arange(math.prod(grid)).reshape(grid)
    even, odd = index[..., 0::2], index[..., 1::2]
    even = even[..., : odd.shape[-1]]
    size = math.prod(grid)
    first, second = Select(even.flatten(), size), Select(odd.flatten(), size)
    start = b.last
    negative = Scale(torch.full((odd.numel(),), -1.0, dtype=torch.float64))
    other = b.affine((start, second))
    b.affine((start, first), (other, negative))
    rest = b.activate()
    b.affine((rest, Identity(odd.numel())), (other, Identity(odd.numel())))
    return tuple(odd.shape)


def image_maps() -> list[tuple[Conv | Dense | LinearMap, tuple[int, ...], tuple[int, ...]]]:
    """Maps with the grids that they read and write."""
    b = Builder(1, 0)
    found: list[tuple[LinearMap, tuple[int, ...], tuple[int, ...]]] = []
    for conv in (
        Conv(b.weights(3, 2, 3, 3), (2, 7, 6), (1, 1), (0, 0), (1, 1)),
        Conv(b.weights(3, 2, 3, 2), (2, 7, 6), (2, 1), (1, 1), (1, 2)),
        Conv(b.weights(4, 2, 2, 2), (4, 6, 6), (2, 2), (0, 1), (1, 1), groups=2),
        Conv(b.weights(2, 2, 1, 1), (2, 5, 5), (3, 2), (0, 0), (1, 1)),
        Conv(b.weights(3, 2, 4), (2, 9), (2,), (1,), (2,)),
        Conv(b.weights(2, 2, 2, 2, 2), (2, 4, 4, 4), (1, 2, 1), (1, 0, 0), (1, 1, 1)),
    ):
        found.append((conv, conv.in_shape, conv.out_shape))
        found.append((Transposed(conv), conv.out_shape, conv.in_shape))
    found.append((Scale(b.weights(2 * 7 * 6)), (2, 7, 6), (2, 7, 6)))
    found.append((Identity(2 * 7 * 6), (2, 7, 6), (2, 7, 6)))
    found.append((Dense(b.weights(5, 84)), (2, 7, 6), (5,)))
    found.append((Select(torch.arange(84).flip(0), 84), (2, 7, 6), (2, 7, 6)))
    return found


def single_entries(grid: Grid) -> tuple[Patches, torch.Tensor]:
    """One item per entry of an image, and the same functionals as flat vectors."""
    entry = torch.arange(math.prod(grid))
    positions = math.prod(grid[1:])
    items = Items(positions_of(entry % positions, grid), grid[1:], torch.zeros_like(entry))
    patches = Patches.entries(items, entry // positions, grid, torch.float64)
    return patches, torch.eye(math.prod(grid), dtype=torch.float64)
