"""Softmax, which classifiers end in, by activations of one variable."""

from __future__ import annotations

import torch

from lipcompare.errors import InvalidInput
from lipcompare.network.activations import smooth
from lipcompare.network.lowering.arithmetic import add, negate, subtract
from lipcompare.network.lowering.builder import Builder, Operand, Value, as_value, rearrange


def softmax(b: Builder, x: Operand, axis: int) -> Operand:
    """Softmax along an axis.

    With ``o_i`` the logarithm of the sum of the exponentials of all entries but ``i`` it is ``sigmoid(x_i - o_i)``. The
    Jacobian is then ``s_i (1 - s_i)``, at most a quarter, times a difference of weights between 0 and 1, on any logits,
    and no exponential is formed.
    """
    others = _logarithm_of_others(b, x, axis)
    if others is None:
        return torch.ones(tuple(x.shape), dtype=torch.float64)
    return b.activate(as_value(b, subtract(b, x, others)), smooth.sigmoid())


def log_softmax(b: Builder, x: Operand, axis: int) -> Operand:
    """Its logarithm, ``-softplus(o_i - x_i)``."""
    others = _logarithm_of_others(b, x, axis)
    if others is None:
        return torch.zeros(tuple(x.shape), dtype=torch.float64)
    return negate(b, b.activate(as_value(b, subtract(b, others, x)), smooth.softplus()))


def _logarithm_of_others(b: Builder, x: Operand, axis: int) -> Operand | None:
    """``log sum_{j != i} exp(x_j)`` for every entry ``i`` along an axis; None where there are no others.

    The axis is a circle. Sums over ``2^k`` entries from ``i`` on are made of two of half the length, and those of all
    others of the lengths that make up their number in binary: ``log2`` of it steps.
    """
    count = x.shape[axis] - 1 if len(x.shape) else 0
    if not count:
        return None
    window, length = x, 1  # sums over this many entries, from i on
    total: Operand | None = None
    summed = 0  # over this many entries, from i + 1 on
    while summed < count:
        if count & length:
            part = _rolled(b, window, 1 + summed, axis)
            total, summed = part if total is None else _sum_of_exponentials(b, total, part), summed + length
        if summed < count:
            window = _sum_of_exponentials(b, window, _rolled(b, window, length, axis))
            length *= 2
    return total


def _rolled(b: Builder, x: Operand, by: int, axis: int) -> Operand:
    """Entry ``i + by`` at place ``i``."""
    return rearrange(b, [x], lambda t: t.roll(-by, axis))


def _sum_of_exponentials(b: Builder, x: Operand, y: Operand) -> Value:
    """``log(exp(x) + exp(y)) = y + softplus(x - y)``."""
    return as_value(b, add(b, y, b.activate(as_value(b, subtract(b, x, y)), smooth.softplus())))


def no_softmax(last: str) -> InvalidInput:
    """What to say to somebody who asks for logits of a model that ends in something else."""
    return InvalidInput(
        f"logits=True (--logits) leaves out a softmax at the end, and the model ends in {last!r}: drop it."
    )
