"""Two kinds of arithmetic behind one face: floating point with error bounds, and rational numbers without errors.

Everything is written once, for arrays of either. A sum whose terms have the absolute sum ``S``, formed by a chain of
``n`` floating-point operations in any order, errs by at most ``gamma_n S`` with ``gamma_n = n u / (1 - n u)``, ``u =
2^-53`` (Higham, Accuracy and Stability, section 3.1), plus what underflow adds: at most 2^-1022 an operation, however
the processor treats small numbers. :class:`~lipverify.question.Question` refuses data through which a number could grow
by more than 2^200. The products of four such numbers in a semidefinite bound, times a multiplier of at most 2^100, stay
below 2^900, and 2^20 underflows, each times three such numbers and a multiplier, below 2^(20 - 1022 + 700) < ``TINY``.
It also refuses data in which a product of numbers that are not 0 could be below 2^-600: so ``S`` is 0 for sums of
zeros only, which have no error, and a bound that is not 0 is at least an ulp of ``TINY``, so its products are not 0.
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

LARGEST, GROWTH, SMALL, TINY = 2.0**100, 200, 600, 2.0**-300
"""Multipliers are cut to LARGEST; log2 of the growth of a number through the data, and of how small products of its
numbers may become; what all underflows add up to."""


class Floating:
    """Doubles. Sums are taken as numpy takes them; every bound adds the error of its sums."""

    def array(self, values: Any) -> Array:
        return np.asarray(values, np.float64)

    def zeros(self, *shape: int) -> Array:
        return np.zeros(shape)

    def error(self, count: int, total: Any) -> Any:
        """Error of sums with the absolute sums ``total``, formed by ``count`` operations each."""
        # Twice the textbook value: the absolute sums are rounded themselves.
        step = count * 2.0**-53
        return 2 * step / (1 - 2 * step) * total + TINY * (total != 0)

    def floats(self, values: Array) -> Array:
        return values

    def up(self, values: Array) -> Array:
        """Somewhat more than ``values``, for results of one or two operations."""
        return np.where(values == 0, values, np.nextafter(np.nextafter(values, np.inf), np.inf))


def rational(value: Any) -> Any:
    """A number as an exact rational."""
    if fmpq is not None and isinstance(value, fmpq):
        return value
    exact = value if isinstance(value, Fraction) else Fraction(*value.as_integer_ratio())
    return exact if fmpq is None else fmpq(exact.numerator, exact.denominator)


def fraction(value: Any) -> Fraction:
    """Any number as a fraction."""
    return Fraction(int(value.p), int(value.q)) if hasattr(value, "p") else Fraction(*value.as_integer_ratio())


_rationals = np.frompyfunc(rational, 1, 1)
_floats = np.frompyfunc(lambda value: float(fraction(value)), 1, 1)


class Exact:
    """Rational numbers. Intervals between layers are rounded outward to doubles, which keeps the numbers short."""

    def array(self, values: Any) -> Array:
        return np.asarray(_rationals(np.asarray(values, object)), object)

    def zeros(self, *shape: int) -> Array:
        return np.full(shape, rational(0), object)

    def error(self, count: int, total: Any) -> int:
        return 0

    def floats(self, values: Array) -> Array:
        return np.asarray(_floats(values), np.float64)

    def up(self, values: Array) -> Array:
        near = self.floats(values)
        return self.array(np.where(self.array(near) < values, np.nextafter(near, np.inf), near))


Arithmetic = Floating | Exact


def outward(value: Any, *, up: bool, root: bool = False) -> float:
    """The nearest double on the safe side, or that of the square root; what is no number proves nothing."""
    if isinstance(value, float) and not np.isfinite(value):
        return np.inf if up else 0.0
    exact, power = fraction(value), 2 if root else 1
    near = float(np.sqrt(float(exact))) if root else float(exact)
    while Fraction(near) ** power < exact if up else Fraction(near) ** power > exact:
        near = float(np.nextafter(near, np.inf if up else -np.inf))
    return near


def shift(arithmetic: Arithmetic, matrix: Array) -> Number:
    """A small ``delta`` with ``matrix + delta I`` positive semidefinite, proved; infinity where none was found.

    In floating point the lower triangle is what is meant.
    """
    floats = arithmetic.floats(matrix)
    if not np.isfinite(floats).all():
        return np.inf
    n, identity = len(floats), np.eye(len(floats))
    least = np.linalg.eigvalsh(floats)[0]
    # A Cholesky factorisation of A that runs through proves A + (n + 2) u tr(A) I positive semidefinite (Rump, BIT 46,
    # 2006). The trace of what is factorised is at most this, and adding to the diagonal rounds too: n + 6.
    size = np.abs(np.diag(floats)).sum() + 2 * n * abs(least)
    margin = 1.01 * (n + 6) * 2.0**-53 * size + TINY
    for factor in (1.0, 4.0, 64.0, 1024.0):
        delta = max(0.0, -least) * (1 + 1e-12 * factor) + 4 * factor * margin
        if isinstance(arithmetic, Exact):
            if semidefinite(matrix + arithmetic.array(delta * identity)):
                return arithmetic.array(delta)[()]
            continue
        try:
            np.linalg.cholesky(floats + (delta - margin) * identity)
        except np.linalg.LinAlgError:
            continue
        return np.float64(delta)
    return np.inf


def semidefinite(matrix: Array) -> bool:
    """Whether a rational symmetric matrix is positive semidefinite: LDL' by elimination."""
    rest = matrix.copy()
    for i in range(len(rest)):
        pivot, column = rest[i, i], rest[i + 1 :, i]
        if pivot < 0 or (pivot == 0 and bool((column != 0).any())):
            return False
        if pivot > 0:
            rest[i + 1 :, i + 1 :] = rest[i + 1 :, i + 1 :] - np.outer(column / pivot, column)
    return True
