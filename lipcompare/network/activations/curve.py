"""Supporting lines of a one-dimensional function over intervals, from a few facts about its shape.

One scheme serves every smooth activation, and its derivative too. Between its *bends* a curve is convex, concave or
straight, so that for any slope ``s`` the smallest value of ``f(z) - s z`` over ``[l, u]`` lies at an end, at a bend, or
at the one point of a convex piece where ``f'(z) = s``. That point is bracketed by bisection, and by convexity the value
at ``z`` in a bracket of width ``w`` is above the minimum by at most ``|f'(z) - s| w``, which is subtracted: the line is
a lower bound whatever the bisection reached, and whatever ``s`` is. Only the choice of slopes is a matter of quality.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lipcompare.network.activations.base import Lines
from lipcompare.network.interval import Interval
from lipcompare.rounding import function_error

_COARSE, _FINE = 24, 44
"""Bisection steps while looking for a good slope, and for the intercept that goes with it."""


class Bend(NamedTuple):
    """A point where curvature changes sign or something jumps; the smaller and the larger one-sided value there."""

    point: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Curve:
    """A function, its derivative, and its bends from left to right; the derivative is monotone between bends."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    bends: tuple[Bend, ...]
    flipped: bool = False

    def flip(self) -> Curve:
        """The curve with its sign changed."""
        bends = tuple(Bend(b.point, -b.high, -b.low) for b in self.bends)
        return dataclasses.replace(self, bends=bends, flipped=not self.flipped)

    def at(self, z: Tensor) -> Tensor:
        return -self.value(z) if self.flipped else self.value(z)

    def rise(self, z: Tensor) -> Tensor:
        return -self.slope(z) if self.flipped else self.slope(z)

    def convex_pieces(self) -> list[tuple[float, float]]:
        """Pieces between bends on which the derivative rises."""
        ends = [-math.inf, *(b.point for b in self.bends), math.inf]
        pieces = []
        for a, b in itertools.pairwise(ends):
            # Two points inside tell: the derivative is monotone there.
            left = b - 2.0 if math.isinf(a) else a + (1.0 if math.isinf(b) else (b - a) / 4)
            right = left + (1.0 if math.isinf(a) or math.isinf(b) else (b - a) / 2)
            if math.isinf(a) and math.isinf(b):
                left, right = -1.0, 1.0
            probe = self.rise(torch.tensor([left, right], dtype=torch.float64))
            if float(probe[1]) > float(probe[0]):
                pieces.append((a, b))
        return pieces


class Family(NamedTuple):
    """Three pairs of lines; every convex combination of lower (upper) lines is a lower (upper) line."""

    first: Lines
    best: Lines
    last: Lines

    def at(self, choice: Tensor | None = None) -> Lines:
        """0 the first pair, 1/2 the best for the whole interval, 1 the last, and combinations in between."""
        if choice is None:
            return self.best
        first, last = (1 - 2 * choice).clamp(min=0), (2 * choice - 1).clamp(min=0)
        best = 1 - first - last
        return Lines(*(first * a + best * b + last * c for a, b, c in zip(*self, strict=True)))


def family(curve: Curve, z: Interval, image: Interval, slopes: Interval) -> Family:
    """Lines around a curve over intervals: touching it at the left end, tight in the middle, touching at the right end.

    Args:
        image, slopes: ranges of the curve and of its derivative over ``z``; where ``z`` or its range of slopes is not
            finite the lines are the constants of ``image``.
    """
    finite = torch.isfinite(z.lower) & torch.isfinite(z.upper) & torch.isfinite(image.upper - image.lower)
    zero = torch.zeros_like(z.lower)
    inner = Interval(torch.where(finite, z.lower, zero), torch.where(finite, z.upper, zero))
    steep = Interval(*(torch.where(finite, s, zero) for s in slopes))
    lower = _supports(curve, inner, steep)
    upper = _supports(curve.flip(), inner, Interval(-steep.upper, -steep.lower))
    pairs = []
    for (s, b), (t, c) in zip(lower, upper, strict=True):
        pairs.append(
            Lines(
                torch.where(finite, s, zero),
                torch.where(finite, b, image.lower),
                torch.where(finite, -t, zero),
                torch.where(finite, -c, image.upper),
            )
        )
    return Family(*pairs)


def _supports(curve: Curve, z: Interval, slopes: Interval) -> list[tuple[Tensor, Tensor]]:
    """Slope and intercept of three lower lines: of the convex envelope at the left end, in the middle, at the right."""
    start, end = z
    width = end - start
    wide = width > 0
    safe = torch.where(wide, width, torch.ones_like(width))
    at_l, at_u = curve.at(start), curve.at(end)
    chord = torch.where(wide, (at_u - at_l) / safe, curve.rise(start))
    chord = torch.minimum(torch.maximum(chord, slopes.lower), slopes.upper)
    ends = torch.stack([torch.minimum(chord, curve.rise(start)), torch.maximum(chord, curve.rise(end))])
    # Slopes of the envelope at the ends are the extreme secants from there: a ratio, optimised by Dinkelbach's method.
    for _ in range(4):
        _, where = _intercept(curve, ends, z, _COARSE)
        low = _one_sided_low(curve, where)
        left = (low[0] - at_l) / torch.where(where[0] > start, where[0] - start, torch.ones_like(start))
        right = (at_u - low[1]) / torch.where(where[1] < end, end - where[1], torch.ones_like(start))
        left = torch.where(where[0] > start, torch.minimum(ends[0], left), ends[0])
        right = torch.where(where[1] < end, torch.maximum(ends[1], right), ends[1])
        ends = torch.stack([left, right])
    middle = start + width / 2
    candidates = torch.stack([ends[0], ends[1], chord, curve.rise(middle)])
    intercepts, _ = _intercept(curve, candidates, z, _FINE)
    # A line's area over the interval is its value in the middle times the width.
    best = (candidates * middle + intercepts).argmax(0, keepdim=True)
    chosen = (candidates.gather(0, best).squeeze(0), intercepts.gather(0, best).squeeze(0))
    return [(candidates[0], intercepts[0]), chosen, (candidates[1], intercepts[1])]


def _one_sided_low(curve: Curve, z: Tensor) -> Tensor:
    """The curve, with its smaller value where it jumps."""
    value = curve.at(z)
    for bend in curve.bends:
        value = torch.where(z == bend.point, value.clamp(max=bend.low), value)
    return value


def _intercept(curve: Curve, s: Tensor, z: Interval, steps: int) -> tuple[Tensor, Tensor]:
    """A number below ``f(z) - s z`` over the interval, rounded down, and a point where it is (nearly) attained.

    Args:
        s: slopes (k, ...) for ``z`` of shape (...).
    """
    start, end = (v.expand_as(s) for v in z)
    at_l, at_u = _one_sided_low(curve, start), _one_sided_low(curve, end)
    left, right = at_l - s * start, at_u - s * end
    best = torch.minimum(left, right)
    where = torch.where(left <= right, start, end)
    for bend in curve.bends:
        candidate = bend.low - s * bend.point
        take = (start <= bend.point) & (bend.point <= end) & (candidate < best)
        best, where = torch.where(take, candidate, best), torch.where(take, bend.point, where)
    for a, b in curve.convex_pieces():
        low, high = torch.minimum(start.clamp(min=a), end), torch.maximum(end.clamp(max=b), start)
        for _ in range(steps):
            middle = low + (high - low) / 2
            before = curve.rise(middle) < s
            low, high = torch.where(before, middle, low), torch.where(before, high, middle)
        middle = low + (high - low) / 2
        candidate = curve.at(middle) - s * middle - (curve.rise(middle) - s).abs() * (high - low)
        best, where = torch.minimum(best, candidate), torch.where(candidate < best, middle, where)
    size = 1 + torch.maximum(at_l.abs(), at_u.abs()) + s.abs() * torch.maximum(start.abs(), end.abs())
    return best - function_error(size), where
