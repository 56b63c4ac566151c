"""Elementwise intervals of tensors, the currency of every bound in the package."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Interval(NamedTuple):
    """Elementwise bounds ``lower <= value <= upper`` of one tensor; both fields have the value's shape."""

    lower: Tensor
    upper: Tensor

    @property
    def center(self) -> Tensor:
        return (self.lower + self.upper) / 2

    @property
    def radius(self) -> Tensor:
        return (self.upper - self.lower) / 2

    @property
    def magnitude(self) -> Tensor:
        """Largest absolute value in each entry."""
        return torch.maximum(-self.lower, self.upper)

    @property
    def ordered(self) -> Interval:
        """The ends in order, which only widens: crossed ones passed each other by rounding, or hold nothing."""
        return Interval(torch.minimum(*self), torch.maximum(*self))

    def meet(self, other: Interval) -> Interval:
        """The tighter of each end; crossed where the two have nothing in common."""
        return Interval(torch.maximum(self.lower, other.lower), torch.minimum(self.upper, other.upper))

    def intersect(self, other: Interval) -> Interval:
        """The tighter of each end, of two bounds that both hold: in order."""
        return self.meet(other).ordered

    def select(self, mask: Tensor, other: Interval) -> Interval:
        """This interval where ``mask`` is true, ``other`` elsewhere."""
        return Interval(torch.where(mask, self.lower, other.lower), torch.where(mask, self.upper, other.upper))


def end_functionals(entries: Tensor, size: int, like: Tensor) -> Tensor:
    """Functionals whose upper bounds are both ends of some ``entries`` (some,) of a vector: ``e_i``, then ``-e_i``.

    Returns:
        Tensor (2 some, size), of the kind of ``like``.
    """
    rows, place = like.new_zeros(2 * len(entries), size), entries.unsqueeze(-1)
    rows[: len(entries)].scatter_(1, place, 1.0)
    rows[len(entries) :].scatter_(1, place, -1.0)
    return rows
