"""Numbers as text, rounded to the side on which they stay proved; and when two results contradict each other."""

from __future__ import annotations

import decimal
import math

import numpy as np


def lower_text(value: float, digits: int = 5) -> str:
    """A lower bound to some significant digits, rounded down; "-" where nothing is proved."""
    return "-" if value <= 0 else _rounded(value, digits, decimal.ROUND_FLOOR)


def upper_text(value: float, digits: int = 5) -> str:
    """An upper bound to some significant digits, rounded up; "-" where nothing is proved."""
    return "-" if math.isinf(value) else _rounded(value, digits, decimal.ROUND_CEILING)


def signed_lower_text(value: float, digits: int = 5) -> str:
    """A lower bound on a quantity of either sign, rounded down; "-" where nothing is proved."""
    return "-" if math.isinf(value) else _rounded(value + 0.0, digits, decimal.ROUND_FLOOR)


def signed_upper_text(value: float, digits: int = 5) -> str:
    """An upper bound on a quantity of either sign, rounded up; "-" where nothing is proved."""
    return "-" if math.isinf(value) else _rounded(value + 0.0, digits, decimal.ROUND_CEILING)


def _rounded(value: float, digits: int, direction: str) -> str:
    short = decimal.Context(prec=digits, rounding=direction).plus(decimal.Decimal(float(value)))
    if short and not -4 <= short.adjusted() <= 6:
        return f"{short.normalize():e}"
    return f"{short:f}"


def agree(lower: np.ndarray, upper: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
    """Where a proved lower bound and a proved upper bound on one quantity do not exclude each other.

    Args:
        lower, upper: arrays of one shape; NaN agrees with nothing.
        scale: how far rounding may have moved the two ends apart, together.
    """
    allowed: np.ndarray = lower <= upper + scale
    return allowed


def crossing_scale(upper: np.ndarray, *, double: bool) -> np.ndarray:
    """How far the ends of an interval may cross by the rounding of the precision that they were computed in."""
    relative = 1e-9 if double else 1e-3
    scale: np.ndarray = relative * (1 + np.abs(upper))
    return scale
