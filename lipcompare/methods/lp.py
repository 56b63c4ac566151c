"""LipLP: the linear relaxation of the mixed-integer program (Jordan and Dimakis 2020, arXiv 2003.01219)."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import ClassVar, final

import numpy as np

import solvers
from lipcompare.budget import Budget, Clock, Deadline, Kept
from lipcompare.encoding.builder import OutOfRange
from lipcompare.methods.base import HURRIED, REFINING, Method, as_array
from lipcompare.methods.linear import linear_bounds
from lipcompare.methods.milp import FATAL, STATUSES, get_solver, said
from lipcompare.problem import Problem
from lipcompare.programs.preactivation import Refinement, refined_bounds
from lipcompare.programs.prepared import encodable, encode_rows, prepare, prepared_from
from lipcompare.result import Bound, Status
from lipcompare.rounding import sum_above
from lipcompare.witness import gradient_norms

_KEPT = "Some rows keep the bound of linear propagation."


@final
@dataclasses.dataclass(frozen=True)
class Lp(Method):
    """The linear relaxation of :class:`~lipcompare.methods.milp.Milp`, one linear program per row.

    Never above ``lbp`` with the same pre-activation bounds: that bound is this program without its forward half. The
    upper bound is recomputed from the solver's multipliers by weak duality, so it does not rest on the solver's word.

    Attributes:
        solver: a name that ``lipcompare solvers`` lists.
        tightening: pre-activation bounds that the hulls come from.
        threads: CPU threads of the solver.
    """

    name: ClassVar[str] = "lp"
    proves: ClassVar[str] = "upper"
    summary: ClassVar[str] = "linear programming relaxation of milp (LipLP)"
    reference: ClassVar[str] = "jordan2020lipmip"

    solver: str = "highs"
    tightening: Refinement = Refinement.ALPHA_CROWN
    threads: int = 1

    def __post_init__(self) -> None:
        self.at_least(1, "threads")
        get_solver(self.solver)

    def supports(self, problem: Problem) -> str | None:
        return encodable(problem)

    def run(self, problem: Problem, budget: Budget) -> Bound:
        clock = Clock(budget)
        linear = linear_bounds(problem.double("cpu"), clock, self.tightening.propagated, joint=False)
        solver, memory = get_solver(self.solver), budget.memory
        upper = as_array(linear.upper).copy()
        status, detail = (Status.TIME_LIMIT, HURRIED) if linear.hurried else (Status.COMPLETE, "")
        # The programs of a network for whose propagation the time is short are larger than that.
        for b in range(problem.batch) if not linear.hurried else ():
            part = linear.part(b)
            some, ends = part.problem, Deadline.after(clock.left / (problem.batch - b))
            if ends.passed(part.ahead):
                status, detail = Status.TIME_LIMIT, _KEPT
                break
            told = _Told(clock, upper, b)
            prepared = prepared_from(some, part.propagated(memory, REFINING * ends.left))
            if self.tightening.solves:
                bounds = refined_bounds(
                    some.network,
                    some.box.interval,
                    self.tightening,
                    solver,
                    left=functools.partial(_half, ends),
                    memory=memory,
                    start=prepared.bounds,
                )
                prepared = prepare(some, bounds, memory=memory, deadline=ends)
                told.tighten(slice(None), prepared.upper.numpy())
            center = some.box.interval.center[0]
            attained = gradient_norms(some.network, some.functionals[0], center, some.norm).tolist()
            # A solver takes one program at a time. The largest bound first: it decides.
            for done, row in enumerate(np.argsort(-told.upper, kind="stable").tolist()):
                if ends.passed():
                    status, detail = Status.TIME_LIMIT, _KEPT
                    break
                try:
                    encoding = encode_rows(prepared, [row])
                except OutOfRange as error:
                    status, detail = Status.NUMERICAL, str(error)
                    continue
                program = encoding.program.relaxed()
                if ends.passed():
                    status, detail = Status.TIME_LIMIT, _KEPT
                    break
                share = ends.left / (problem.rows - done)
                limits = solvers.Limits(time_limit=max(share, 0.01), threads=self.threads)
                solution = solver.solve(program, limits)
                # Evaluated at the solver's multipliers (its word alone is nothing), for the stored coefficients.
                evaluated = solution.multipliers is not None and math.isfinite(solution.dual_bound)
                bound = float(sum_above(max(-solution.dual_bound, 0.0), encoding.error))
                # Under a value that is attained it is no bound but trouble.
                if evaluated and bound >= attained[row] - encoding.error:
                    told.tighten(row, bound)
                elif solution.status.is_proof:
                    status, detail = Status.NUMERICAL, f"{self.solver}: {solution.status.value}"
                outcome = STATUSES[solution.status]
                if outcome is Status.INTERRUPTED:
                    raise KeyboardInterrupt  # the solver turned it into a status
                if outcome is not Status.COMPLETE:
                    status, detail = outcome, said(solution)
                    if outcome in FATAL:
                        return self.result(problem, clock, upper=upper, status=status, detail=detail)
        return self.result(problem, clock, upper=upper, status=status, detail=detail)


def _half(ends: Deadline) -> float:
    """Seconds that refining may take of what is left."""
    return ends.left / 2


class _Told:
    """The bounds of one example in those of the batch; each improvement is kept and recorded."""

    def __init__(self, clock: Clock, batch: np.ndarray, example: int) -> None:
        self.clock, self.batch, self.example = clock, batch, example

    @property
    def upper(self) -> np.ndarray:
        """(rows,)"""
        rows: np.ndarray = self.batch[self.example]
        return rows

    def tighten(self, rows: int | slice, upper: float | np.ndarray) -> None:
        """Take up bounds of some rows; NaN is none."""
        self.upper[rows] = np.fmin(self.upper[rows], upper)
        self.clock.keep(Kept(0, self.batch))
        self.clock.record(0.0, float(self.batch.max()))
