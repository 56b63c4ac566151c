"""Two kinds of arithmetic behind one face: floating point with error bounds, and rational numbers without errors.

Everything is written once, for arrays of either. ``gamma(n)`` is the relative error of a chain of ``n`` floating-point
operations, ``n u / (1 - n u)`` with ``u = 2^-53`` (Higham, Accuracy and Stability, section 3.1), and 0 for rationals.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

try:
    from flint import fmpq
except ImportError:
    fmpq = None

Array = np.ndarray[Any, Any]
Number = Any
"""One entry of an array: a double or a rational."""


class Floating:
    """Doubles. Sums are taken as numpy takes them; every bound adds ``gamma`` times the sum of absolute values."""

    exact = False

    def array(self, values: Any) -> Array:
        return np.asarray(values, np.float64)

    def zeros(self, *shape: int) -> Array:
        return np.zeros(shape)

    def gamma(self, count: int) -> float:
        # Twice the textbook value: the absolute sums that it multiplies are rounded themselves.
        step = count * 2.0**-53
        return 2 * step / (1 - 2 * step)

    def floats(self, values: Array) -> Array:
        return values

    def up(self, values: Array) -> Array:
        """Somewhat more than ``values``, for results of one or two operations."""
        return np.nextafter(np.nextafter(values, np.inf), np.inf)

    def down(self, values: Array) -> Array:
        return -self.up(-values)


def rational(value: Any) -> Any:
    """A number as an exact rational."""
    if isinstance(value, (int, np.integer)):
        return Fraction(int(value)) if fmpq is None else fmpq(int(value))
    if isinstance(value, Fraction):
        return value if fmpq is None else fmpq(value.numerator, value.denominator)
    if fmpq is not None and isinstance(value, fmpq):
        return value
    numerator, denominator = float(value).as_integer_ratio()
    return Fraction(numerator, denominator) if fmpq is None else fmpq(numerator, denominator)


def _to_float(value: Any) -> float:
    if isinstance(value, (int, float, Fraction)):
        return float(value)
    return float(Fraction(int(value.p), int(value.q)))


_rationals = np.frompyfunc(rational, 1, 1)
_floats = np.frompyfunc(_to_float, 1, 1)


class Exact:
    """Rational numbers. Intervals between layers are rounded outward to doubles, which keeps the numbers short."""

    exact = True

    def array(self, values: Any) -> Array:
        made = _rationals(np.asarray(values, object))
        return made if isinstance(made, np.ndarray) else np.asarray(made, object)

    def zeros(self, *shape: int) -> Array:
        return np.full(shape, rational(0), object)

    def gamma(self, count: int) -> int:
        return 0

    def floats(self, values: Array) -> Array:
        return np.asarray(_floats(values), np.float64)

    def up(self, values: Array) -> Array:
        near = self.floats(values)
        return self.array(np.where(self.array(near) < values, np.nextafter(near, np.inf), near))

    def down(self, values: Array) -> Array:
        return -self.up(-values)


Arithmetic = Floating | Exact
