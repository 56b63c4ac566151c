"""Smooth activations: one entry of a table each.

An entry is the function with its two derivatives (see the module ``functions``) and the places where its shape changes:
the zeros of each derivative and the points where one jumps. They are known to machine precision (the tests recompute
them with more digits), so ranges over intervals are extrema over finitely many points, exact up to a stated rounding
allowance. Lines around the function and around its derivative both come from the module ``curve``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import cached_property, partial

import torch
from torch import Tensor

from lipcompare.network.activations import functions as f
from lipcompare.network.activations.base import Activation, Adjustable, Lines, differentiated
from lipcompare.network.activations.curve import Bend, Curve, Family, family
from lipcompare.network.interval import Interval
from lipcompare.rounding import function_error

Function = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True, eq=False)
class Smooth(Activation):
    """A continuous activation whose derivative varies, and may jump at finitely many points.

    Attributes:
        function, first, second: value and derivatives.
        stationary: zeros of the first derivative.
        inflections: zeros of the second derivative and points where the first one jumps.
        flexes: zeros of the third derivative and points where the second or the first one jumps.
        jumps: one-sided values of the first derivative, at the points where they differ.
    """

    name: str
    function: Function
    first: Function
    second: Function
    stationary: tuple[float, ...] = ()
    inflections: tuple[float, ...] = ()
    flexes: tuple[float, ...] = ()
    jumps: Mapping[float, tuple[float, float]] = dataclasses.field(default_factory=dict)

    @property
    def piecewise_linear(self) -> bool:
        return False

    def value(self, z: Tensor) -> Tensor:
        return self.function(z)

    def derivative(self, z: Tensor) -> Tensor:
        return self.first(z)

    def smoothed_derivative(self, z: Tensor, width: Tensor) -> Tensor:
        return self.first(z)

    def slope_range(self, z: Interval) -> Interval:
        return self._extremes.slopes.over(self.first, z)

    def image(self, z: Interval) -> Interval:
        return self._extremes.values.over(self.function, z)

    def relaxation(self, z: Interval, choice: Tensor | None = None) -> Lines:
        return self._lines(z).at(choice)

    def family(self, z: Interval) -> Adjustable:
        return partial(differentiated, self._lines(z).at)

    def _lines(self, z: Interval) -> Family:
        return family(self._extremes.curve, z, self.image(z), self.slope_range(z))

    def start(self, z: Interval) -> Tensor:
        return torch.full_like(z.lower, 0.5)

    def slope_lines(self, z: Interval) -> Lines | None:
        steep = self._extremes.seconds.over(self.second, z)
        return family(self._extremes.slope_curve, z, self.slope_range(z), steep).best

    @cached_property
    def _extremes(self) -> _Extremes:
        return _Extremes.of(self)


@dataclasses.dataclass(frozen=True)
class _Range:
    """Where a function of one variable can be extreme besides the ends of an interval, and its exact limits.

    Attributes:
        bends: extreme points with their values.
        floor, ceiling: limits at infinity that bound the function exactly; no rounding carries a range past them.
    """

    bends: tuple[Bend, ...]
    floor: float
    ceiling: float

    @classmethod
    def of(cls, function: Function, bends: tuple[Bend, ...]) -> _Range:
        far = [float(v) for v in function(torch.tensor([-math.inf, math.inf], dtype=torch.float64))]
        low, high = min(far), max(far)
        floor = low if all(b.low >= low for b in bends) else -math.inf
        ceiling = high if all(b.high <= high for b in bends) else math.inf
        return cls(bends, floor, ceiling)

    def over(self, function: Function, z: Interval) -> Interval:
        """The function's range over an interval, rounded outward."""
        ends = function(z.lower), function(z.upper)
        lower, upper = torch.minimum(*ends), torch.maximum(*ends)
        for bend in self.bends:
            inside = (z.lower <= bend.point) & (bend.point <= z.upper)
            lower = torch.where(inside, lower.clamp(max=bend.low), lower)
            upper = torch.where(inside, upper.clamp(min=bend.high), upper)
        lower = lower - function_error(torch.where(lower.isfinite(), lower.abs().clamp(min=1), 0.0))
        upper = upper + function_error(torch.where(upper.isfinite(), upper.abs().clamp(min=1), 0.0))
        return Interval(
            lower.clamp(min=-_above(-self.floor, lower.dtype)), upper.clamp(max=_above(self.ceiling, lower.dtype))
        )


def _above(limit: float, dtype: torch.dtype) -> float:
    """The least number of a precision that is not under a limit."""
    rounded = torch.tensor(limit, dtype=dtype)
    if float(rounded) < limit:
        rounded = torch.nextafter(rounded, torch.tensor(math.inf, dtype=dtype))
    return float(rounded)


@dataclasses.dataclass(frozen=True)
class _Extremes:
    """What :class:`Smooth` derives from its traits once."""

    values: _Range
    slopes: _Range
    seconds: _Range
    curve: Curve
    slope_curve: Curve

    @classmethod
    def of(cls, a: Smooth) -> _Extremes:
        def bends(
            function: Function, points: tuple[float, ...], jumps: Mapping[float, tuple[float, float]]
        ) -> tuple[Bend, ...]:
            made = []
            for p in points:
                value = float(function(torch.tensor(p, dtype=torch.float64)))
                sides = jumps.get(p, (value, value))
                made.append(Bend(p, min(sides), max(sides)))
            return tuple(made)

        # The second derivative jumps at most at its own bends; the limits from both sides lie within its range nearby.
        near = {p: _sides(a.second, p) for p in a.flexes}
        return cls(
            values=_Range.of(a.function, bends(a.function, a.stationary, {})),
            slopes=_Range.of(a.first, bends(a.first, a.inflections, a.jumps)),
            seconds=_Range.of(a.second, bends(a.second, a.flexes, near)),
            curve=Curve(a.function, a.first, bends(a.function, a.inflections, {})),
            slope_curve=Curve(a.first, a.second, bends(a.first, a.flexes, a.jumps)),
        )


def _sides(function: Function, point: float) -> tuple[float, float]:
    """Values of a function next to a point where it may jump; only the choice of a slope depends on them."""
    near = function(torch.tensor([point - 1e-12, point + 1e-12], dtype=torch.float64))
    return float(near[0]), float(near[1])


def sigmoid() -> Smooth:
    """``1 / (1 + exp(-z))``."""
    flex = 1.3169578969248167  # log(2 + sqrt 3)
    return Smooth("sigmoid", f.sigmoid, f.sigmoid_1, f.sigmoid_2, (), (0.0,), (-flex, flex))


def tanh() -> Smooth:
    """The hyperbolic tangent."""
    flex = 0.6584789484624083  # log(2 + sqrt 3) / 2
    return Smooth("tanh", f.tanh, f.tanh_1, f.tanh_2, (), (0.0,), (-flex, flex))


def softplus() -> Smooth:
    """``log(1 + exp(z))``."""
    return Smooth("softplus", f.softplus, f.sigmoid, f.sigmoid_1, (), (), (0.0,))


def elu(alpha: float = 1.0) -> Smooth:
    """``z`` where positive, ``alpha (exp(z) - 1)`` elsewhere, with ``alpha > 0``; its derivative jumps at 0 unless
    ``alpha`` is 1. SELU and CELU are scaled copies."""
    jumps = {} if alpha == 1 else {0.0: (alpha, 1.0)}
    value, first, second = (partial(g, alpha=alpha) for g in (f.elu, f.elu_1, f.elu_2))
    return Smooth(f"elu({alpha:g})", value, first, second, (), (0.0,), (0.0,), jumps)


def silu() -> Smooth:
    """``z sigmoid(z)``, also called swish."""
    bend, flex = 2.3993572805154677, 3.435840993535111
    least = -1.278464542761074
    return Smooth("silu", f.silu, f.silu_1, f.silu_2, (least,), (-bend, bend), (-flex, 0.0, flex))


def gelu() -> Smooth:
    """``z`` times the normal distribution function."""
    bend = math.sqrt(2.0)
    return Smooth("gelu", f.gelu, f.gelu_1, f.gelu_2, (-0.7517915246935645,), (-bend, bend), (-2.0, 0.0, 2.0))


def gelu_tanh(cube: float = f.GELU_CUBE) -> Smooth:
    """The approximation of GELU by a hyperbolic tangent, ``z (1 + tanh(sqrt(2 / pi) (z + cube z^3))) / 2``.

    ``cube`` is what a model has for 0.044715: files store that number in single precision, and a network is the one
    whose numbers are stored. It must be near enough for the shape to be the same.
    """
    bend, flex = 1.4185040087908284, 2.013480724624258
    least = -0.7524614220710163
    value, first, second = (partial(g, cube=cube) for g in (f.gelu_tanh, f.gelu_tanh_1, f.gelu_tanh_2))
    if cube != f.GELU_CUBE:
        # Extremes are quadratic in where they are taken; the flexes only choose slopes.
        bend, least = _zero_near(second, bend), _zero_near(first, least)
    return Smooth("gelu_tanh", value, first, second, (least,), (-bend, bend), (-flex, 0.0, flex))


def _zero_near(function: Function, point: float) -> float:
    """The zero of a function next to that of one that differs little."""
    # Formulas of the same function, so their zeros differ by the error of an approximation: a thousandth at most.
    ends = torch.tensor([point - 1e-3, point + 1e-3], dtype=torch.float64)
    rising = bool(function(ends)[0] < 0)
    for _ in range(60):
        middle = ends.mean()
        ends[int(bool(function(middle) < 0) != rising)] = middle
    return float(ends.mean())


def mish() -> Smooth:
    """``z tanh(softplus(z))``."""
    bends = (-2.256376396360793, 1.4905711794854285)
    flexes = (-3.2673378465204045, -0.08793443131491421, 2.114842563020877)
    return Smooth("mish", f.mish, f.mish_1, f.mish_2, (-1.192431214515495,), bends, flexes)


def softsign() -> Smooth:
    """``z / (1 + |z|)``."""
    return Smooth("softsign", f.softsign, f.softsign_1, f.softsign_2, (), (0.0,), (0.0,))


def hardswish() -> Smooth:
    """``z min(max(z + 3, 0), 6) / 6``; its derivative jumps at -3 and 3."""
    jumps = {-3.0: (-0.5, 0.0), 3.0: (1.0, 1.5)}
    parts = (f.hardswish, f.hardswish_1, f.hardswish_2)
    return Smooth("hardswish", *parts, (-1.5,), (-3.0, 3.0), (-3.0, 3.0), jumps)


def exp() -> Smooth:
    """The exponential; its slope is bounded only where the pre-activation is."""
    return Smooth("exp", f.exp, f.exp, f.exp)


def square() -> Smooth:
    """``z^2``; its slope is bounded only where the pre-activation is."""
    return Smooth("square", f.square, f.square_1, f.square_2, (0.0,))


def erf() -> Smooth:
    """The error function."""
    flex = math.sqrt(0.5)
    return Smooth("erf", f.erf, f.erf_1, f.erf_2, (), (0.0,), (-flex, flex))


def arctan() -> Smooth:
    """The inverse tangent."""
    flex = math.sqrt(1 / 3)
    return Smooth("arctan", f.arctan, f.arctan_1, f.arctan_2, (), (0.0,), (-flex, flex))


TABLE: dict[str, Callable[[], Smooth]] = {
    g.__name__: g
    for g in (sigmoid, tanh, softplus, elu, silu, gelu, gelu_tanh, mish, softsign, hardswish, exp, square, erf, arctan)
}
"""Every smooth activation, with its default parameters."""
