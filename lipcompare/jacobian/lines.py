"""Lines and planes around a gate: what a gradient times a slope lies between, over an interval of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lipcompare.jacobian.smooth import Plane, Shares, planes
from lipcompare.network.activations import Lines
from lipcompare.network.interval import Interval
from lipcompare.rounding import unit_roundoff


def dot(weights: Tensor, vectors: Tensor) -> Tensor:
    """``weights`` (targets, n) or (batch, rows or 1, targets, n) times ``vectors`` (batch, rows, n): (batch, rows,
    targets)."""
    if weights.ndim == 2:
        return vectors @ weights.T
    if weights.shape[1] == 1:
        return vectors @ weights.squeeze(1).mT
    batch, rows, targets, size = weights.shape
    if targets == 1:
        return (weights.squeeze(2) * vectors).sum(-1, keepdim=True)
    # Three dimensions: matmul makes four into these by more calls.
    flat = weights.reshape(batch * rows, targets, size), vectors.reshape(batch * rows, size, 1)
    return torch.bmm(*flat).view(batch, rows, targets)


class GateLines(NamedTuple):
    """Two lines ``(slope -+ slope_spread) J + offset -+ offset_spread`` around a gate: middle and half difference.

    In this form a functional with weight ``t`` is bounded by ``t`` times the middle plus ``|t|`` times the spread, with
    no split by sign. The middle offset of the convex hull is zero and then not stored. The planes around a smooth gate
    also have a slope in its pre-activation (None for lines).

    Attributes:
        terms: the sum of the absolute values of all terms of the gradient and of either line, (batch, rows, 1), where
            it is known; else None.
    """

    slope: Tensor
    slope_spread: Tensor
    offset: Tensor | None
    offset_spread: Tensor
    forward: Tensor | None = None
    forward_spread: Tensor | None = None
    terms: Tensor | None = None

    def each(self, function: Callable[[Tensor], Tensor]) -> GateLines:
        """The same of every field."""
        return GateLines._make(None if value is None else function(value) for value in self)

    def size(self, gradient: Tensor, preactivation: Tensor | None = None) -> Tensor:
        """Sum of the absolute values of the terms of either line, for those of the gradient and the pre-activation."""
        steepest = self.slope.abs() + self.slope_spread.abs()
        total = torch.addcmul(self.offset_spread.abs(), steepest, gradient)
        if self.offset is not None:
            total = total + self.offset.abs()
        if self.forward is not None and self.forward_spread is not None:
            assert preactivation is not None
            total = total + (self.forward.abs() + self.forward_spread.abs()) * preactivation
        return total

    def offsets(self, value: Tensor | None = None) -> tuple[Tensor | None, Tensor]:
        """The constants' middle (None for 0) and spread; with the gradient's ``value`` known, those of all of it."""
        middle, spread = self.offset, self.offset_spread
        if value is None:
            return middle, spread
        middle = value * self.slope if middle is None else torch.addcmul(middle, value, self.slope)
        return middle, torch.addcmul(spread, value, self.slope_spread)

    def bound(self, weights: Tensor, size: Tensor, value: Tensor | None = None) -> Tensor:
        """The constant part of the upper bound for ``weights`` (``size`` is their absolute value); with the gradient's
        ``value`` known, all of it."""
        middle, spread = self.offsets(value)
        bound = dot(size, spread)
        return bound if middle is None else bound + dot(weights, middle)


LineRule = Callable[[Interval, Interval], GateLines]
"""Lines around ``u = a J`` from the ranges of ``J`` and of ``a``; they hold with their stored coefficients."""


def chords(gradient: Interval, slope: Interval) -> GateLines:
    """The convex hull of ``a J`` for ``J`` in ``gradient`` and ``a`` in ``slope``: the paper. The fields broadcast.

    The coefficients are off by at most 4 (middle) and 12 (spread) roundoffs times the steepest slope, the offsets by
    as much times the largest gradient, so the offsets cover 32 times the width of its interval with 0. Where the gate
    is decided its line is exact.
    """
    (lo, hi), below, above = slope, gradient.lower.clamp(max=0), gradient.upper.clamp(min=0)
    range_, width = hi - lo, above - below
    # Above, through (below, lo below) and (above, hi above); below, through the two other corners.
    reach = range_ * (above / width).nan_to_num_(nan=1.0)
    error = slope.magnitude * range_.sign() * (32 * unit_roundoff(range_.dtype))
    return GateLines(
        slope=lo.add(range_, alpha=0.5),
        slope_spread=reach.sub(range_, alpha=0.5),
        offset=None,
        offset_spread=torch.addcmul(error * width, reach, below, value=-1),
    )


def constants(gradient: Interval, slope: Interval) -> GateLines:
    """The interval of ``a J`` where both the gate and the sign of ``J`` are undecided, exact lines elsewhere (RecurJac,
    Zhang et al. 2019, arXiv 1810.11783). The fields broadcast; what is said of rounding in :func:`chords` holds."""
    (lo, hi), below, above = slope, gradient.lower.clamp(max=0), gradient.upper.clamp(min=0)
    hull = chords(gradient, slope)
    flat = (below < 0) & (above > 0) & (hi > lo)
    highest = torch.maximum(hi * above, lo * below)
    lowest = torch.minimum(hi * below, lo * above)
    # The hull's offset is its error alone where the gradient's sign is decided.
    error = 32 * unit_roundoff(below.dtype) * slope.magnitude * (above - below)
    return GateLines(
        slope=hull.slope.masked_fill(flat, 0.0),
        slope_spread=hull.slope_spread.masked_fill(flat, 0.0),
        offset=((highest + lowest) / 2).masked_fill(~flat, 0.0),
        offset_spread=torch.where(flat, (highest - lowest) / 2 + error, hull.offset_spread),
    )


def gate_planes(
    gradient: Interval, slope: Interval, lines: Lines, preactivation: Tensor, shares: Shares = Shares()
) -> GateLines:
    """Planes around ``s(z) J`` by middle and half difference; the fields broadcast.

    They hold with their stored coefficients: each is a sum of at most four products, so that all of a plane's terms
    together are off by at most 32 roundoffs times their absolute values.

    Args:
        preactivation: largest absolute value of ``z``.
    """
    below, above = planes(gradient, slope, lines, shares)
    middle = Plane(*((a + b) / 2 for a, b in zip(above, below, strict=True)))
    spread = Plane(*((a - b) / 2 for a, b in zip(above, below, strict=True)))
    steep = torch.maximum(lines.lower_slope.abs(), lines.upper_slope.abs()) * preactivation
    steep = steep + torch.maximum(lines.lower_intercept.abs(), lines.upper_intercept.abs()) + 2 * slope.magnitude
    error = 32 * unit_roundoff(steep.dtype) * gradient.magnitude * steep
    return GateLines(
        slope=middle.gradient,
        slope_spread=spread.gradient,
        offset=middle.constant,
        offset_spread=spread.constant + error,
        forward=middle.preactivation,
        forward_spread=spread.preactivation,
    )


def total(first: Tensor, second: Tensor) -> Tensor:
    """The sum of all entries of two vectors (batch, rows, size), (batch, rows, 1)."""
    return (first + second).sum(-1, keepdim=True)
