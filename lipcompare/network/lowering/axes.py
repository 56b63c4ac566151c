"""Linear maps along one axis: running sums, interpolations and their like.

Such an operation applies one matrix along an axis, whatever the other entries are. Any implementation of it tells that
matrix when it is run on unit vectors, so one rule serves all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lipcompare.network.linear_maps import Composed, LinearMap, Scale, Select
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


def running_sum(b: Builder, x: Operand, axis: int, *, exclusive: bool = False, reverse: bool = False) -> Operand:
    """Sums of all entries up to each one along an axis, without it (``exclusive``), or from the end (``reverse``)."""

    def op(t: Tensor) -> Tensor:
        t = t.flip(-1) if reverse else t
        y = t.cumsum(-1) - t if exclusive else t.cumsum(-1)
        return y.flip(-1) if reverse else y

    return along(b, x, axis, op, x.shape[axis])
