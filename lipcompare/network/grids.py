"""Which values of a network are images, and where in them a receptive field lies.

A value is a flat vector; the maps that read and write it know it as an image of some shape, its *grid*. An entry of an
image depends on a window of the images before and after it. As long as an entry at position ``t`` has its window at
``offset + step t``, with whole numbers that do not depend on ``t``, windows of many entries are one tensor.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

from lipcompare.network.graph import Activate, Affine, Network, once_per_network
from lipcompare.network.linear_maps import Composed, Conv, Identity, LinearMap, Scale, Transposed

Grid = tuple[int, ...]
"""(channels, *spatial) of an image, (size,) of a value that is none."""


class Frame(NamedTuple):
    """Where windows lie: that of position ``t`` covers ``offset + step t`` to ``offset + step t + size - 1``, per axis.

    Windows may reach over the edge of the image; their entries there mean nothing.
    """

    offset: tuple[int, ...]
    step: tuple[int, ...]
    size: tuple[int, ...]

    @property
    def volume(self) -> int:
        return math.prod(self.size)

    def union(self, other: Frame) -> Frame | None:
        """The smallest windows that cover both, None where these move differently."""
        if self.step != other.step:
            return None
        offset = tuple(map(min, self.offset, other.offset))
        ends = zip(self.offset, self.size, other.offset, other.size, offset, strict=True)
        return Frame(offset, self.step, tuple(max(a + m, b + n) - o for a, m, b, n, o in ends))

    def inside(self, spatial: tuple[int, ...], places: tuple[int, ...]) -> bool:
        """Whether the windows of all positions below ``places`` lie inside the image."""
        reach = [s * (places[axis] - 1) if s else 0 for axis, s in enumerate(self.step)]
        axes = zip(self.offset, self.size, reach, spatial, strict=True)
        return all(o >= 0 and o + r + k <= n for o, k, r, n in axes)


def whole(grid: Grid) -> Frame:
    """The whole image as everybody's window."""
    return Frame((0,) * (len(grid) - 1), (0,) * (len(grid) - 1), grid[1:])


def spread(m: Conv, frame: Frame) -> Frame:
    """The windows of a convolution's input that windows of its output read."""
    kernel = m.weight.shape[2:]
    axes = list(zip(frame.offset, frame.step, frame.size, kernel, m.stride, m.padding, m.dilation, strict=True))
    return Frame(
        tuple(o * s - p for o, _, _, _, s, p, _ in axes),
        tuple(t * s for _, t, _, _, s, _, _ in axes),
        tuple((n - 1) * s + d * (k - 1) + 1 for _, _, n, k, s, _, d in axes),
    )


def reached(m: Conv, frame: Frame) -> Frame | None:
    """The windows of a convolution's output that read windows of its input; None where strides do not divide steps."""
    kernel = m.weight.shape[2:]
    axes = list(zip(frame.offset, frame.step, frame.size, kernel, m.stride, m.padding, m.dilation, strict=True))
    if any(t % s for _, t, _, _, s, _, _ in axes):
        return None
    first = tuple(-((d * (k - 1) - o - p) // s) for o, _, _, k, s, p, d in axes)
    last = tuple((o + n - 1 + p) // s for o, _, n, _, s, p, _ in axes)
    step = tuple(t // s for _, t, _, _, s, _, _ in axes)
    return Frame(first, step, tuple(max(1, b - a + 1) for a, b in zip(first, last, strict=True)))


def clipped(frame: Frame, spatial: tuple[int, ...]) -> Frame:
    """Windows that do not move, cut at the edges of the image."""
    if any(frame.step):
        return frame
    first = tuple(max(0, o) for o in frame.offset)
    ends = zip(frame.offset, frame.size, first, spatial, strict=True)
    return Frame(first, frame.step, tuple(max(0, min(o + n, m) - a) for o, n, a, m in ends))


def factors(m: LinearMap) -> tuple[LinearMap, ...]:
    """The factors of a product, the one that is applied first in front; none is a product, or transposed in vain."""
    if isinstance(m, Composed):
        return (*factors(m.inner), *factors(m.outer))
    if isinstance(m, Transposed):
        if isinstance(m.base, Composed):
            return tuple(f for factor in reversed(factors(m.base)) for f in factors(Transposed(factor)))
        if isinstance(m.base, Transposed):
            return factors(m.base.base)
        if isinstance(m.base, (Identity, Scale)):  # symmetric
            return (m.base,)
    return (m,)


@once_per_network
def grids(network: Network) -> tuple[Grid, ...]:
    """The grid of every node.

    Convolutions state theirs; activations, sums and scaling hand them on in both directions. Where two maps see one
    value differently the first one decides, and the other one has it as a flat vector.
    """
    # No fold: what a node is goes to its parents and to its readers alike, until nothing is new.
    stated: dict[int, Grid] = {}
    links: list[tuple[int, int]] = []
    for k, node in enumerate(network.nodes):
        if isinstance(node, Activate):
            links.append((node.parent, k))
        elif isinstance(node, Affine):
            for p, m in node.terms:
                first, *_, last = (f := factors(m))[0], f[-1]
                _state(stated, p, _shapes(first)[0])
                _state(stated, k, _shapes(last)[1])
                if all(isinstance(f, (Identity, Scale)) for f in factors(m)):
                    links.append((p, k))
    changed = True
    while changed:
        changed = False
        for a, b in links:
            for source, target in ((a, b), (b, a)):
                if source in stated and target not in stated:
                    stated[target] = stated[source]
                    changed = True
    return tuple(stated.get(k, (node.size,)) for k, node in enumerate(network.nodes))


def between(m: LinearMap, start: Grid, end: Grid) -> tuple[Grid, ...]:
    """Grids before, between and after the factors of a map."""
    passed = [start]
    for first, second in itertools.pairwise(factors(m)):
        shape = _shapes(first)[1] or _shapes(second)[0]
        if shape is None and isinstance(first, (Identity, Scale)):
            shape = passed[-1]
        passed.append(shape or (first.out_size,))
    return (*passed, end)


def _shapes(m: LinearMap) -> tuple[Grid | None, Grid | None]:
    """Grids that a map (no product) reads and writes, where it has any."""
    if isinstance(m, Conv):
        return m.in_shape, m.out_shape
    if isinstance(m, Transposed):
        return _shapes(m.base)[::-1]
    return None, None


def _state(stated: dict[int, Grid], k: int, grid: Grid | None) -> None:
    if grid is not None:
        stated.setdefault(k, grid)
