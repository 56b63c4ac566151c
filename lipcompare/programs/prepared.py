"""What program-based methods start from: bounds, gates and gradient intervals of one example, and its programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import Tensor

from lipcompare.budget import Deadline
from lipcompare.encoding.network import Encoding, encode
from lipcompare.gates import Gates, PreactivationBounds
from lipcompare.jacobian import Gradients, gradient_intervals, norm_bound
from lipcompare.network.interval import Interval
from lipcompare.problem import Norm, Problem
from lipcompare.propagation import Propagated


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """One example with everything its programs are made of.

    Attributes:
        problem: with a batch of 1, float64, on the CPU.
        bounds, gates, gradients: as the bound propagation gives them.
        upper: the linear bound of every row, (rows,).
        hurried: whether the time ran out before the bounds were as tight as they could be.
    """

    problem: Problem
    bounds: PreactivationBounds
    gates: Gates
    gradients: Gradients
    upper: Tensor
    hurried: bool = False


def prepared_from(problem: Problem, linear: Propagated) -> Prepared:
    """What bound propagation gives for one example; looser bounds on a network too large for the time."""
    return Prepared(
        problem=problem,
        bounds=linear.bounds,
        gates=linear.gates,
        gradients=linear.gradients,
        upper=linear.upper[0],
        hurried=linear.hurried,
    )


def prepare(
    problem: Problem, bounds: PreactivationBounds, *, memory: int = 2**30, deadline: Deadline | None = None
) -> Prepared:
    """Gates, gradient intervals (not refined after ``deadline``) and linear bounds of one example from its
    pre-activation bounds."""
    gates = Gates.from_preactivations(problem.network, bounds)
    gradients = gradient_intervals(
        problem.network, gates, problem.functionals, norm=problem.norm, memory=memory, deadline=deadline
    )
    upper = norm_bound(problem.network, problem.functionals, gradients, problem.norm)
    return Prepared(problem=problem, bounds=bounds, gates=gates, gradients=gradients, upper=upper[0])


def encode_rows(
    prepared: Prepared,
    rows: Sequence[int],
    *,
    entries: Interval | None = None,
    least: float = 0.0,
    coupled: bool = True,
) -> Encoding:
    """The program of the maximum over some rows (see :func:`lipcompare.encoding.network.encode`).

    ``entries`` (inputs,), where given, holds the input gradient of all these rows.
    """
    chosen = list(rows)
    problem = dataclasses.replace(prepared.problem, functionals=prepared.problem.functionals[:, chosen])
    intervals = {k: Interval(v.lower[:, chosen], v.upper[:, chosen]) for k, v in prepared.gradients.intervals.items()}
    if entries is not None:
        intervals[0] = Interval(entries.lower.expand(1, len(chosen), -1), entries.upper.expand(1, len(chosen), -1))
    return encode(problem, prepared.bounds, prepared.gates, intervals, least=least, coupled=coupled)


def encodable(problem: Problem) -> str | None:
    """None if a mixed-integer program describes the problem exactly, else why not."""
    if not problem.network.piecewise_linear:
        return "A mixed-integer program needs a piecewise linear network; this one has smooth activations."
    if problem.norm is Norm.TWO:
        return "The l_2 norm of a gradient is not piecewise linear: use p = inf or p = 1, or sdp for p = 2."
    return None
