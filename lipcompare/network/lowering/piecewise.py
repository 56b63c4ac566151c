"""Piecewise linear operations written with ReLUs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lipcompare.errors import InvalidInput
from lipcompare.network.activations import LeakyReLU, relu
from lipcompare.network.graph import Activate, Affine
from lipcompare.network.linear_maps import Identity, Scale
from lipcompare.network.lowering.arithmetic import add, multiply, subtract
from lipcompare.network.lowering.builder import (
    Builder,
    NotLinear,
    Operand,
    Value,
    as_value,
    expand,
    fixed,
    per_channel,
    rearrange,
    reshape,
    take,
)


def rectify(b: Builder, x: Operand) -> Operand:
    """``max(x, 0)``."""
    return x.clamp(min=0) if isinstance(x, Tensor) else b.activate(x, relu())


def leaky(b: Builder, x: Operand, slope: Operand | float) -> Operand:
    """``x`` where positive, ``slope x`` elsewhere; ``slope`` is a number or broadcasts to ``x``."""
    value = as_value(b, x)
    slopes = torch.as_tensor(slope if isinstance(slope, float | int) else fixed(slope, "slopes"), dtype=torch.float64)
    if not bool(torch.isfinite(slopes).all()):
        raise InvalidInput(f"{b.at} has NaN or infinite slopes: retrain or repair the model.")
    if bool((slopes <= 1).all()):
        one = slopes.numel() == 1 or bool((slopes == slopes.reshape(-1)[0]).all())
        alpha = float(slopes.reshape(-1)[0]) if one else slopes.expand(value.shape).reshape(-1).clone()
        return b.activate(value, LeakyReLU(alpha))
    # Concave neurons: s x + (1 - s) relu(x) holds for every s.
    return add(b, multiply(b, value, slopes), multiply(b, rectify(b, value), 1 - slopes))


def prelu(b: Builder, x: Operand, slopes: Operand) -> Operand:
    """A leaky ReLU whose slope is one number, or one per channel (axis 1)."""
    numbers = fixed(slopes, "slopes")
    return leaky(b, x, per_channel(numbers, len(x.shape) - 2) if numbers.numel() > 1 else numbers.reshape(()))


def absolute(b: Builder, x: Operand) -> Operand:
    """``|x|``."""
    return leaky(b, x, -1.0)


def clip(b: Builder, x: Operand, low: Operand | float | None, high: Operand | float | None) -> Operand:
    """``min(max(x, low), high)``; bounds are constants that broadcast, None or infinite where absent."""
    y = x
    lower, upper = _bound(low), _bound(high)
    if lower is not None and upper is not None and bool((lower > upper).any()):
        if not bool((lower >= upper).all()):
            raise NotLinear("its lower bound is above its upper bound for some entries")
        return upper.expand(tuple(x.shape)).clone()
    if lower is not None:
        y = add(b, rectify(b, subtract(b, x, lower)), lower)
    if upper is not None:
        # Both kinks read x itself, so bounds on x serve both; so too where x was clipped from below before.
        before = _rectified(b, x) if lower is None else None
        if before is not None and bool((upper >= before[1]).all()):
            x, upper = before[0], upper - before[1]
        y = subtract(b, y, rectify(b, subtract(b, x, upper)))
    return y


def _rectified(b: Builder, x: Operand) -> tuple[Value, Tensor] | None:
    """The value ``p`` and the constant ``c``, of the shape of ``x``, with ``x = relu(p) + c``; None if x is none."""
    if not isinstance(x, Value):
        return None
    item, constant = b.nodes[x.node], torch.zeros(x.shape, dtype=torch.float64)
    if isinstance(item, Affine) and len(item.parents) == 1 and isinstance(item.maps[0], Identity):
        constant = constant if item.bias is None else item.bias.reshape(x.shape)
        item = b.nodes[item.parents[0]]
    if not isinstance(item, Activate) or not isinstance(item.activation, LeakyReLU):
        return None
    alpha = item.activation.alpha
    return None if isinstance(alpha, Tensor) or alpha != 0 else (Value(item.parent, x.shape), constant)


def hard_sigmoid(b: Builder, x: Operand, slope: float, offset: float) -> Operand:
    """``clip(slope x + offset, 0, 1)``."""
    scaled = multiply(b, x, torch.tensor(slope, dtype=torch.float64))
    return clip(b, add(b, scaled, torch.tensor(offset, dtype=torch.float64)), 0.0, 1.0)


def soft_shrink(b: Builder, x: Operand, width: float) -> Operand:
    """``x`` moved towards zero by ``width``, and zero within it."""
    return subtract(b, x, clip(b, x, -width, width))


def maximum(b: Builder, x: Operand, y: Operand, *, smallest: bool = False) -> Operand:
    """Larger (or smaller) of two operands, with broadcasting: ``max = y + relu(x - y)``, ``min = x - relu(x - y)``."""
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return torch.minimum(x, y) if smallest else torch.maximum(x, y)
    shape = torch.broadcast_shapes(tuple(x.shape), tuple(y.shape))
    x, y = expand(b, x, shape), expand(b, y, shape)
    if isinstance(x, Tensor):
        x, y = y, x
    assert isinstance(x, Value)
    if isinstance(y, Tensor):
        excess = rectify(b, subtract(b, x, y))
    else:
        if y.node < x.node:  # one difference for max(x, y), min(x, y) and max(y, x)
            x, y = y, x
        terms = [(x, Identity(x.size)), (y, Scale(torch.full((y.size,), -1.0, dtype=torch.float64)))]
        excess = rectify(b, b.affine(terms, shape, key=("difference", x.node, y.node)))
    return subtract(b, x, excess) if smallest else add(b, y, excess)


def maximum_over(b: Builder, x: Value, table: Tensor, *, smallest: bool = False) -> Value:
    """Maxima (minima) over sets of entries of ``x``, by a balanced tree of pairs.

    Args:
        table: (K, *shape) indices into the flat ``x``, -1 for no entry; at least one entry per set.

    Returns:
        Value of shape ``shape``. Pairs that several sets share are computed once.
    """
    shape = tuple(table.shape[1:])
    rows = table.reshape(table.shape[0], -1)
    if bool((rows < 0).all(0).any()):
        raise NotLinear("a window holds padding only")
    while len(rows) > 1:
        half = len(rows) // 2
        left, right, odd = rows[0 : 2 * half : 2], rows[1 : 2 * half : 2], rows[2 * half :]
        single = torch.where(left < 0, right, left)
        real = (left >= 0) & (right >= 0) & (left != right)
        low, high = torch.minimum(left, right), torch.maximum(left, right)
        pairs, which = torch.unique((low * x.size + high)[real], return_inverse=True)
        if pairs.numel():
            lone = torch.cat([single[~real & (single >= 0)], odd[odd >= 0]])
            kept = torch.unique(lone)
            winners = maximum(b, take(b, x, pairs // x.size), take(b, x, pairs % x.size), smallest=smallest)
            winner = torch.full((x.size,), -1)
            winner[kept] = pairs.numel() + torch.arange(kept.numel())
            merged = torch.where(single >= 0, winner[single.clamp(min=0)], -1)
            merged[real] = which
            rest = torch.where(odd >= 0, winner[odd.clamp(min=0)], -1)
            both = [reshape(winners, (-1 if isinstance(winners, Tensor) else winners.size,)), take(b, x, kept)]
            x = as_value(b, rearrange(b, both, lambda *ts: torch.cat(ts)))
        else:
            merged, rest = single, odd
        rows = torch.cat([merged, rest])
    return as_value(b, take(b, x, rows[0].reshape(shape)))


def sort(b: Builder, x: Operand, axis: int, *, descending: bool) -> Operand:
    """Entries sorted along an axis (GroupSort), by Batcher's merging network of maxima and minima of pairs.

    K. E. Batcher, Sorting networks and their applications, 1968: ``n log(n)^2 / 4`` comparisons in ``log(n)^2 / 2``
    layers, each of disjoint pairs.
    """
    axis = axis % max(1, len(x.shape))
    size = x.shape[axis] if len(x.shape) else 1
    for lows, highs in _merging_network(size):
        low, high = torch.tensor(lows), torch.tensor(highs)
        first, second = (rearrange(b, [x], lambda t, i=i: t.index_select(axis, i)) for i in (low, high))
        ends = [maximum(b, first, second, smallest=smallest) for smallest in (not descending, descending)]
        x = rearrange(b, [x, *ends], lambda t, p, q, i=low, j=high: t.index_copy(axis, i, p).index_copy(axis, j, q))
    return x


def _merging_network(size: int) -> Iterator[tuple[list[int], list[int]]]:
    """Layers of pairs to compare: the places of the smaller and of the larger entry."""
    merged = 1
    while merged < size:
        step = merged
        while step >= 1:
            starts = range(step % merged, size - step, 2 * step)
            pairs = [i for first in starts for i in range(first, min(first + step, size - step))
                     if i // (2 * merged) == (i + step) // (2 * merged)]  # fmt: skip
            yield pairs, [i + step for i in pairs]
            step //= 2
        merged *= 2


def threshold(b: Builder, x: Operand, at: float, value: float) -> Operand:
    """``x`` where it is above ``at``, ``value`` elsewhere."""
    if at != value:
        raise NotLinear(f"it jumps from {value:g} to {at:g}, and where a function jumps it has no Lipschitz constant")
    return clip(b, x, at, None)


def hard_shrink(b: Builder, x: Operand, width: float) -> Operand:
    """``x`` where it is beyond ``width`` from zero, zero elsewhere."""
    if width > 0:
        raise NotLinear(
            f"it jumps at -{width:g} and {width:g}, and where a function jumps it has no Lipschitz constant"
        )
    return x


def _bound(value: Operand | float | None) -> Tensor | None:
    """A constant bound, None where it bounds nothing."""
    if value is None:
        return None
    bound = torch.as_tensor(value if isinstance(value, float | int) else fixed(value, "bounds"), dtype=torch.float64)
    return None if bool(torch.isinf(bound).all()) else bound
