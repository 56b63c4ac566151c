"""What rounding may do to a number, and numbers as text, rounded to the side on which they stay proved.

Every epsilon of a bound is here. The model of floating point is the standard one (Higham, Accuracy and Stability of
Numerical Algorithms, 2002, chapters 2 and 3): an operation is off by at most ``u`` times its result, plus ``eta`` where
the result underflows. Whatever the order of its summation, a sum of products that takes at most ``n`` operations from
any input to the result is then off by at most ``gamma(n) S``, with ``S`` the same sum of absolute values, plus as many
``eta`` times what they are multiplied with later. ``eta / u`` is the smallest normal number (:func:`floor`), so adding
that to every entry of ``S`` that is not an exact zero, before it is multiplied, covers underflow too. Where ``S`` is
not carried along, that times the largest number that it may be multiplied with does (:func:`underflow`).
"""

from __future__ import annotations

import decimal
import functools
import math

import numpy as np
import torch
from torch import Tensor

Number = float | Tensor

SPARE = 16
"""Operations on the way through one node besides its sums of products: the middle and the radius of an interval, two
lines from their middle and difference, a sum over branches, and the allowance itself that is added on."""


@functools.cache
def unit_roundoff(dtype: torch.dtype) -> float:
    """Largest relative error of one operation, rounded to nearest."""
    return torch.finfo(dtype).eps / 2


def gamma(operations: float, dtype: torch.dtype) -> float:
    """``n u / (1 - n u)``: relative to the sum of absolute values, the error of a chain of ``n`` operations."""
    product = operations * unit_roundoff(dtype)
    return product / (1 - product) if product < 1 else math.inf


@functools.cache
def allowance(operations: float, dtype: torch.dtype) -> float:
    """What covers ``n`` operations, as a multiple of a *computed* sum of absolute values.

    That sum has an error of its own: it may be below the true one by the factor ``1 - gamma(n)``, which is above a half
    as long as ``gamma(n)`` is under a half. So twice ``gamma(n)`` is enough, and beyond that nothing is.
    """
    part = gamma(operations, dtype)
    return 2 * part if part < 0.5 else math.inf


@functools.cache
def floor(dtype: torch.dtype) -> float:
    """What underflow adds to a sum of absolute values: ``eta / u``, the smallest normal number."""
    return torch.finfo(dtype).tiny


def underflow(later: Tensor) -> Tensor:
    """The same for factors that are multiplied with numbers of size ``later`` after they lost it."""
    return floor(later.dtype) * later


FUNCTION = 64
"""Units in the last place by which computed values of smooth functions are widened.

An elementary function of torch is off by at most four (SLEEF, which it vectorises with, states 1 or 3.5). No formula of
the module ``functions`` chains more than four of them, and what follows multiplies each by at most four: arguments are
cut off where a factor that grows meets one that vanishes. The tests compare them with forty digits (at most 1.3 were
measured) and allow half of this; the rest is for the lines that are made of them.
"""


def function_error(size: Tensor) -> Tensor:
    """What a smooth function may be off by where ``size`` is the larger of 1 and the sizes of its terms."""
    return FUNCTION * 2 * unit_roundoff(size.dtype) * size


DIVISOR = 1e-300
"""In place of a divisor that is zero or nearly, where what comes of it is a score or a guess: it decides no bound."""

TIE = 1e-9
"""Relative difference under which two values that points attain count as equal.

Norms of gradients in float64 are sums of some thousand operations, so where little cancels they are off by
``gamma(1000)``, 1e-13, or less: rounding then decides nothing that is looked for. No bound depends on it.
"""

SOLVED = 1e-7
"""What a solver's bound may be off by, relative to a value and to 1: the tolerance on constraints and on reduced costs
that solvers are asked for (:class:`solvers.Capabilities`).

Within it a bound and a value that it meets tell nothing apart: when a solve may end, and what is not taken. What is
taken is lowered by the tolerance times the ranges of all columns and rows
(:func:`lipcompare.programs.tolerance.solver_error`).
"""

DISPUTED = 1e-6
"""The difference, relative and under 1 absolute, from which a solver's word and a bound of ours cannot both be right.

Points of solvers are checked to that (:data:`solvers.checks.TOLERANCE`), ten times what they are asked for. A word that
is off by less is not believed either, but is no bug.
"""


def cholesky_shift(order: Tensor, trace: Tensor) -> Tensor:
    """A shift ``c`` for which a Cholesky factorisation of ``S - c I`` that runs through proves ``S`` semidefinite.

    Of matrices of an ``order`` and a ``trace`` (problems,) that is at most ``trace``, in floating point. It is
    ``gamma(n + 1) / (1 - gamma(n + 1)) tr(S)`` by Rump, Verification of positive definiteness, BIT 2006, theorem 2.3;
    the diagonal is rounded where it is shifted and the trace where it is summed, hence ``n + 6``, and the hundredth
    covers ``gamma`` up to an order of 10^13.
    """
    return 1.01 * (order + 6) * unit_roundoff(trace.dtype) * trace


def power_of_two(size: Tensor) -> Tensor:
    """Exponents of powers of two just above the given sizes, 0 for sizes that are zero or not finite."""
    _, exponent = torch.frexp(torch.where(size.isfinite(), size, 0.0))
    return exponent


def scaled(values: Tensor, exponent: Tensor) -> Tensor:
    """``values`` times two to the power of ``exponent``; exact but where the result under- or overflows.

    In two steps, since a power may be out of range where the product is not.
    """
    half = torch.div(exponent, 2, rounding_mode="trunc")
    two = torch.full((), 2.0, dtype=values.dtype, device=values.device)
    return values * two.pow(half) * two.pow(exponent - half)


def euclidean(values: Tensor) -> Tensor:
    """The l2 norm of the last axis, of numbers whose squares may be out of range.

    Relative to the largest entry, what underflows then is below the rounding of the sum.
    """
    if values.shape[-1] == 0:
        return values.sum(-1)
    exponent = power_of_two(values.detach().abs().amax(-1, keepdim=True))
    norm: Tensor = torch.linalg.vector_norm(scaled(values, -exponent), dim=-1)
    return scaled(norm, exponent.squeeze(-1))


def raised(bound: Tensor, operations: float) -> Tensor:
    """A bound that is a sum without cancellation, so not negative, raised by its own rounding; zeros stay.

    The next number above it covers what ``1 + u`` does not change.
    """
    factor = 1 + allowance(operations + SPARE, bound.dtype)
    if factor == math.inf:
        return torch.where(bound > 0, torch.inf, bound)
    # The factor is at most 2, so four times the bound lies above, and is zero where the bound is.
    return torch.nextafter(bound * factor, bound * 4)


def total_above(terms: Tensor) -> Tensor:
    """The sum of the last axis, rounded upward; the terms may have either sign."""
    error = allowance(terms.shape[-1] + SPARE, terms.dtype) * terms.abs().sum(-1)
    return terms.sum(-1) + error


def lowered(bound: Tensor, operations: float) -> Tensor:
    """The same downward: what a sum without cancellation is at least."""
    lower = bound * (1 - allowance(operations + SPARE, bound.dtype))
    return torch.where(lower > 0, torch.nextafter(lower, torch.zeros_like(lower)), 0.0)


def root_above(square: Tensor, otherwise: Tensor) -> Tensor:
    """The root of a bound on a square, rounded upward; infinite where squares are out of range.

    ``otherwise`` is the size of the squares that went into it: where those underflow, the bound says nothing.
    """
    low = floor(square.dtype) / unit_roundoff(square.dtype) ** 2
    known = (otherwise > low) | (otherwise == 0)
    return torch.where(known, raised(square.clamp(min=0).sqrt(), 1), torch.inf)


def above(value: Number) -> Number:
    """The next float64 above a positive number: one correctly rounded operation gave less than that. Zero stays."""
    if isinstance(value, Tensor):
        return torch.where(value > 0, torch.nextafter(value, torch.full_like(value, torch.inf)), value)
    return math.nextafter(value, math.inf) if value > 0 else value


def product_above(a: Number, b: Number) -> Number:
    """The product of two numbers that are not negative, rounded upward; zero only if one of them is."""
    product = a * b
    if isinstance(product, Tensor):
        higher = torch.nextafter(product, torch.full_like(product, torch.inf))
        return torch.where((a > 0) & (b > 0), higher, product)  # type: ignore[arg-type]  # one of them is a tensor
    return math.nextafter(product, math.inf) if a > 0 and b > 0 else product


def sum_above(a: Number, b: Number) -> Number:
    """The sum of two numbers that are not negative, rounded upward."""
    return above(a + b)


def sqrt_above(value: float) -> float:
    """The root of a number that is not negative, rounded upward."""
    root = math.sqrt(value)
    return math.nextafter(root, math.inf) if root > 0 else root


def lower_text(value: float, digits: int = 5) -> str:
    """A lower bound to some significant digits, rounded down; "-" where nothing is proved."""
    return _rounded(value, digits, decimal.ROUND_FLOOR) if value > 0 else "-"


def upper_text(value: float, digits: int = 5) -> str:
    """An upper bound to some significant digits, rounded up; "-" where nothing is proved."""
    return _rounded(value, digits, decimal.ROUND_CEILING) if math.isfinite(value) else "-"


def signed_lower_text(value: float, digits: int = 5) -> str:
    """A lower bound on a quantity of either sign, rounded down; "-" where nothing is proved."""
    return _rounded(value + 0.0, digits, decimal.ROUND_FLOOR) if math.isfinite(value) else "-"


def signed_upper_text(value: float, digits: int = 5) -> str:
    """An upper bound on a quantity of either sign, rounded up; "-" where nothing is proved."""
    return _rounded(value + 0.0, digits, decimal.ROUND_CEILING) if math.isfinite(value) else "-"


def gap_text(gap: float) -> str:
    """A relative gap in per cent; "-" where an end is not proved."""
    if not math.isfinite(gap):
        return "-"
    return "<0.01%" if 0 < gap < 1e-4 else f"{max(gap, 0.0):.2%}"


def _rounded(value: float, digits: int, direction: str) -> str:
    short = decimal.Context(prec=digits, rounding=direction).plus(decimal.Decimal(float(value)))
    if short and not -4 <= short.adjusted() <= 6:
        return f"{short.normalize():e}"
    return f"{short:f}"


def agree(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Where a proved lower bound and a proved upper bound on one quantity do not exclude each other.

    Upper bounds are rounded up where they leave a pass or a solver, and lower bounds are what a witness attains less
    its rounding, so there is nothing left to allow for.

    Args:
        lower, upper: arrays of one shape; NaN agrees with nothing.
    """
    allowed: np.ndarray = lower <= upper
    return allowed
