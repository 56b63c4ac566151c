"""Linear maps that are read off an implementation: along one axis, as running sums and interpolations, or all at once.

An operation of the first kind applies one matrix along an axis, whatever the other entries are. Any implementation of
it tells that matrix when it is run on unit vectors, so one rule serves all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lipcompare.network.linear_maps import Composed, Dense, LinearMap, Scale, Select
from lipcompare.network.lowering.arithmetic import dense
from lipcompare.network.lowering.builder import Builder, NotLinear, Operand, Value, rearrange

_FEW = 4
"""Entries a row of a matrix that is better written as a sum of scaled selections than as a matrix."""


def along(b: Builder, x: Operand, axis: int, op: Callable[[Tensor], Tensor], size: int) -> Operand:
    """An operation that is linear along one axis and the same for all other entries.

    Args:
        op: takes vectors (count, n) to vectors (count, ``size``), each by the same matrix.
        size: length of the axis of the result.
    """
    axis, n = axis % len(x.shape), int(x.shape[axis])
    shape = [*x.shape]
    shape[axis] = size
    b.require([n, n + size])
    b.require(shape, copies=_FEW)
    matrix = op(torch.eye(n, dtype=torch.float64)).T  # (size, n)
    if tuple(matrix.shape) != (size, n) or bool(op(torch.zeros(1, n, dtype=torch.float64)).any()):
        raise NotLinear("it is not linear along one axis")
    if isinstance(x, Tensor):
        return (x.to(torch.float64).movedim(axis, -1) @ matrix.T).movedim(-1, axis)
    taps = max(1, int((matrix != 0).sum(1).max()))
    if taps <= _FEW:
        return b.affine(_taps(x, axis, matrix, taps), shape)
    last = rearrange(b, [x], lambda t: t.movedim(axis, -1))
    return rearrange(b, [dense(b, last, matrix)], lambda t: t.movedim(-1, axis))


def _taps(x: Value, axis: int, matrix: Tensor, taps: int) -> list[tuple[Value, LinearMap]]:
    """``sum_k w_k x[i_k]`` over the entries that each row of the matrix has."""
    places = matrix.abs().topk(taps, dim=1).indices  # (size, taps)
    labels = torch.arange(math.prod(x.shape)).reshape(x.shape)
    spread = [-1 if k == axis else 1 for k in range(len(x.shape))]
    terms: list[tuple[Value, LinearMap]] = []
    for place in places.unbind(1):
        index = labels.index_select(axis, place)
        weight = matrix.gather(1, place[:, None]).reshape(spread).expand(index.shape)
        terms.append((x, Composed(Scale(weight.reshape(-1).clone()), Select(index.reshape(-1), x.size))))
    return terms


def probed(b: Builder, x: Value, op: Callable[[Tensor], Tensor]) -> Operand:
    """An operation that is affine in a value and mixes any of its entries: its matrix is what it makes of unit vectors.

    Args:
        op: takes a tensor of the value's shape.
    """
    nothing = torch.zeros(x.shape, dtype=torch.float64)
    at_zero = op(nothing)
    b.require([x.size, 2 * at_zero.numel()])
    columns = []
    for i in range(x.size):
        nothing.view(-1)[i] = 1.0
        columns.append((op(nothing.clone()) - at_zero).reshape(-1))
        nothing.view(-1)[i] = 0.0
    matrix = torch.stack(columns, 1)  # (results, entries)
    some = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # In float64 of size one; what is linear is off by roundoffs, and what is not by its size at a random point.
    if not torch.allclose(op(some) - at_zero, (matrix @ some.reshape(-1)).reshape(at_zero.shape), rtol=1e-9, atol=1e-9):
        raise NotLinear("it is not linear in what depends on the input")
    taps = max(1, int((matrix != 0).sum(1).max()))
    terms: list[tuple[Value, LinearMap]] = [(x, Dense(matrix))]
    if taps <= _FEW:
        places = matrix.abs().topk(taps, dim=1).indices
        weights = matrix.gather(1, places)
        pairs = zip(places.unbind(1), weights.unbind(1), strict=True)
        terms = [(x, Composed(Scale(w.clone()), Select(i.clone(), x.size))) for i, w in pairs]
    return b.affine(terms, at_zero.shape, at_zero if bool(at_zero.any()) else None)


def running_sum(b: Builder, x: Operand, axis: int, *, exclusive: bool = False, reverse: bool = False) -> Operand:
    """Sums of all entries up to each one along an axis, without it (``exclusive``), or from the end (``reverse``)."""

    def op(t: Tensor) -> Tensor:
        t = t.flip(-1) if reverse else t
        y = t.cumsum(-1) - t if exclusive else t.cumsum(-1)
        return y.flip(-1) if reverse else y

    return along(b, x, axis, op, x.shape[axis])
