"""Results as tidy records: one row per example, or per example and functional, with what is proved in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lipcompare.problem import Problem
from lipcompare.result import Bound, proved


def tidy(label: str, result: Bound) -> Iterator[dict[str, Any]]:
    """One record per example of a result; an end that is not proved is NaN, and so is the gap then."""
    ends = proved(result.overall_lower, result.overall_upper)
    for b, (lower, upper) in enumerate(zip(*ends, strict=True)):
        yield _record({"problem": label, "example": b}, result, lower, upper, result.proves)


def tidy_rows(label: str, problem: Problem, result: Bound, gap: float) -> Iterator[dict[str, Any]]:
    """One record per example and functional of a result on a problem, named in ``functional``.

    Each is said to be proved as far as it is: exactly where its own interval is closed to ``gap``.
    """
    ends = proved(result.lower, result.upper)
    for b in range(problem.batch):
        for name, lower, upper in zip(problem.row_names(b), ends[0][b], ends[1][b], strict=True):
            where = {"problem": label, "example": b, "functional": name}
            yield _record(where, result, lower, upper, row_proves(lower, upper, gap))


def row_proves(lower: float, upper: float, gap: float) -> str:
    """What ends, NaN where nothing is proved, prove of one functional."""
    if upper - lower <= gap * upper:
        return "exact"
    return {(True, True): "interval", (False, True): "upper", (True, False): "lower"}.get(
        (lower >= 0, upper >= 0), "nothing"
    )


def _record(where: Mapping[str, Any], result: Bound, lower: float, upper: float, proves: str) -> dict[str, Any]:
    return {
        **where,
        "method": result.method,
        "lower": float(lower),
        "upper": float(upper),
        "gap": float(relative_gap(lower, upper)),
        "proves": proves,
        "status": result.status.name.lower(),
        "message": result.sentence,
        "seconds": result.seconds,
        "device": result.device,
        "dtype": result.dtype,
        "options": options_text(result.options),
    }


def relative_gap(lower: Any, upper: Any) -> Any:
    """``(upper - lower) / upper`` of ends that are NaN where nothing is proved, and then NaN; 0 for the zero function.

    Of numbers or arrays.
    """
    return np.where(upper == 0, 0.0, (upper - lower) / np.where(upper > 0, upper, np.nan))


def options_text(options: Mapping[str, Any]) -> str:
    """A method's options in one line."""
    return ", ".join(f"{k}={getattr(v, 'value', v)}" for k, v in options.items())
