"""Planes around ``u = s(z) J``: the slope of a smooth activation as a function of its pre-activation, times a gradient.

The appendix of the paper (arXiv 2210.07394) relaxes this product jointly. With ``s`` in ``[lo, hi]`` and ``J`` in
``[L, U]``, ``(hi - s)(J - L) >= 0`` and ``(s - lo)(U - J) >= 0`` give two planes over ``u`` in ``(J, s)`` (McCormick),
and so does every mixture of the two; below ``u`` likewise. A mixture in which ``s`` cancels is the gate's hull, all
that the slope range alone can say. Any other leaves a multiple of ``s``, which a line around ``s`` turns into one of
the pre-activation ``z``; what a functional collects there is bounded by running on through the forward network, where
terms of different neurons, layers and paths cancel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from torch import Tensor

from lipcompare.network.activations import Lines
from lipcompare.network.interval import Interval


class Forward(Protocol):
    """Upper bounds on sums of functionals of pre-activations.

    Attributes:
        scales: per activation node (batch, neurons), what the rounding of these bounds is measured by: they are off by
            the allowance for a pass through the network times the weights' absolute values times these.
        largest: (batch, 1), what underflow in a weight on the way is multiplied by, at most.
    """

    @property
    def scales(self) -> Mapping[int, Tensor]: ...

    @property
    def largest(self) -> Tensor: ...

    def __call__(self, weights: Mapping[int, Tensor]) -> Tensor:
        """Bounds (batch, rows, targets) for weights (batch, rows, targets, neurons) per activation node."""


class Shares(NamedTuple):
    """Weight in [0, 1] of the second of the two planes above and below; broadcasts to (batch, rows, neurons)."""

    above: Tensor | float = 0.5
    below: Tensor | float = 0.5


class Plane(NamedTuple):
    """``u <= gradient J + preactivation z + constant``, or ``>=``."""

    gradient: Tensor
    preactivation: Tensor
    constant: Tensor


def planes(gradient: Interval, slope: Interval, lines: Lines, shares: Shares = Shares()) -> tuple[Plane, Plane]:
    """Planes below and above ``u = s(z) J``; the fields of the arguments broadcast to (batch, rows, neurons).

    Args:
        gradient: range of ``J``.
        slope: range of ``s``.
        lines: lines around ``s`` in ``z``.
    """
    (low, high), (lower, upper) = gradient, slope
    width, spread = high - low, upper - lower
    at_above = high - shares.above * width
    at_below = low + shares.below * width
    above = _replace_slope(
        lower + shares.above * spread,
        at_above,
        -(shares.above * upper * low + (1 - shares.above) * lower * high),
        (lines.upper_slope, lines.upper_intercept),
        (lines.lower_slope, lines.lower_intercept),
    )
    below = _replace_slope(
        lower + shares.below * spread,
        at_below,
        -((1 - shares.below) * lower * low + shares.below * upper * high),
        (lines.lower_slope, lines.lower_intercept),
        (lines.upper_slope, lines.upper_intercept),
    )
    return below, above


def _replace_slope(
    gradient: Tensor, weight: Tensor, constant: Tensor, rising: tuple[Tensor, Tensor], falling: tuple[Tensor, Tensor]
) -> Plane:
    """``weight s`` replaced by ``weight`` times one of two lines, by its sign."""
    positive = weight.clamp(min=0)
    negative = weight - positive
    return Plane(
        gradient,
        positive * rising[0] + negative * falling[0],
        constant + positive * rising[1] + negative * falling[1],
    )
