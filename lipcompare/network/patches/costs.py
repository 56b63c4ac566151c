"""What passes on windows take, and on whole images: operations and memory, known before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

from lipcompare.network.compose import cost
from lipcompare.network.graph import Activate, Affine, Network, fold_backward
from lipcompare.network.grids import Frame, Grid, between, clipped, factors, grids, reached, spread, whole
from lipcompare.network.linear_maps import Conv, Identity, LinearMap, Scale, Transposed
from lipcompare.network.patches.windows import covers

_PASS = 8
"""Multiply-adds that take as long as what is done to one entry between two products."""


class Costs(NamedTuple):
    """What one row takes that starts at a single entry of a node and goes back to the input."""

    windows: int  # multiply-adds on patches
    images: int  # multiply-adds on whole images
    widest: int  # entries of the widest tensor on the way


def window_costs(network: Network, node: int, ends: Collection[int] = ()) -> Costs:
    """Operations and memory per row of a backward pass, on patches and on whole images.

    ``ends``: activation nodes where the pass ends.

    An elementwise step counts as :data:`_PASS` multiply-adds per entry; gathering is part of that.
    """
    shapes = grids(network)
    axes = len(shapes[node]) - 1
    windows = images = 0
    widest = 1

    def activation(k: int, item: Activate, frame: Frame) -> Frame | None:
        nonlocal windows, images
        windows += _PASS * frame.volume * shapes[k][0]
        images += _PASS * item.size
        return None if k in ends else frame

    def affine(k: int, item: Affine, maps: Sequence[LinearMap], frame: Frame) -> list[Frame]:
        nonlocal windows, images, widest
        frames = []
        for p, m in zip(item.parents, maps, strict=True):
            before, operations, entries = frame_before(m, frame, shapes[p], shapes[k])
            frames.append(before)
            windows += operations
            images += frame_before(m, whole(shapes[k]), shapes[p], shapes[k])[1]
            widest = max(widest, entries)
        return frames

    def add(a: Frame, b: Frame) -> Frame:
        union = a.union(b)
        return union if union is not None else max(a, b, key=lambda f: f.volume)

    fold_backward(network, {node: Frame((0,) * axes, (1,) * axes, (1,) * axes)}, activation, affine, add=add)
    return Costs(windows, images, widest)


def frame_before(m: LinearMap, frame: Frame, grid: Grid, here: Grid) -> tuple[Frame, int, int]:
    """Where the patches lie that :func:`push_back` makes, its operations for one item and its largest tensor."""
    shapes = between(m, grid, here)
    operations, widest = 0, 1
    for factor, before, after in zip(reversed(factors(m)), reversed(shapes[:-1]), reversed(shapes[1:]), strict=True):
        share = min(1.0, frame.volume / max(1, math.prod(after[1:])))
        base = factor.base if isinstance(factor, Transposed) else factor
        earlier: Frame | None = None
        if isinstance(factor, (Identity, Scale)) and before == after:
            earlier = frame
        elif isinstance(base, Conv):
            taps, volume = math.prod(base.weight.shape[2:]), frame.volume
            if factor is base and (base.in_shape, base.out_shape) == (before, after):
                earlier = clipped(spread(base, frame), before[1:])
                widest = max(widest, volume * taps * before[0])
            elif factor is not base and (base.in_shape, base.out_shape) == (after, before):
                reach = reached(base, frame)
                earlier = None if reach is None else clipped(reach, before[1:])
                windows = volume * before[0] if max(base.stride) == 1 else (earlier or whole(before)).volume * after[0]
                widest = max(widest, windows * taps)
        if earlier is None or covers(earlier, before):
            earlier = whole(before)
        frame = earlier
        operations += int(share * cost(factor)) + _PASS * frame.volume * before[0]
        widest = max(widest, frame.volume * before[0])
    return frame, operations, widest


def frame_after(m: LinearMap, frame: Frame, grid: Grid, there: Grid) -> tuple[Frame, int, int]:
    """The same for :func:`push_on`, from ``grid`` to ``there``."""
    return frame_before(Transposed(m), frame, there, grid)
