"""LipLP: the linear relaxation of the mixed-integer program (Jordan and Dimakis 2020, arXiv 2003.01219)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, final

import numpy as np

import solvers
from lipcompare.budget import Budget, Clock
from lipcompare.methods.base import HURRIED, Method
from lipcompare.methods.milp import STATUSES, get_solver
from lipcompare.problem import Problem
from lipcompare.programs.preactivation import Refinement, refined_bounds
from lipcompare.programs.prepared import encodable, encode_rows, first_bounds, prepare
from lipcompare.result import Bound, Status


@final
@dataclasses.dataclass(frozen=True)
class Lp(Method):
    """The linear relaxation of :class:`~lipcompare.methods.milp.Milp`, one linear program per row.

    Never above ``lbp`` with the same pre-activation bounds: that bound is this program without its forward half. The
    upper bound is recomputed from the solver's multipliers by weak duality, so it does not rest on the solver's word.
    """

    name: ClassVar[str] = "lp"
    proves: ClassVar[str] = "upper"
    summary: ClassVar[str] = "linear programming relaxation of milp (LipLP)"
    reference: ClassVar[str] = "jordan2020lipmip"

    solver: str = "highs"
    tightening: Refinement = Refinement.ALPHA_CROWN
    threads: int = 1

    def __post_init__(self) -> None:
        get_solver(self.solver)

    def supports(self, problem: Problem) -> str | None:
        return encodable(problem)

    def run(self, problem: Problem, budget: Budget) -> Bound:
        clock = Clock(budget)
        double, solver = problem.double("cpu"), get_solver(self.solver)
        upper = np.full((problem.batch, problem.rows), np.inf)
        status, detail = Status.COMPLETE, ""
        for b in range(problem.batch):
            example, share = double.example(b), clock.left / (problem.batch - b)
            prepared = first_bounds(example, self.tightening.propagated, seconds=0.9 * share, memory=budget.memory)
            upper[b] = prepared.upper.numpy()
            clock.record(0.0, float(upper.max()))
            if prepared.hurried:  # the programs of such a network are larger than its propagation
                status, detail = Status.TIME_LIMIT, HURRIED
                continue
            if self.tightening.solves:
                bounds = refined_bounds(
                    example.network,
                    example.box.interval,
                    self.tightening,
                    solver,
                    left=lambda: clock.left,
                    memory=budget.memory,
                    start=prepared.bounds,
                )
                prepared = prepare(example, bounds, memory=budget.memory)
                upper[b] = np.minimum(upper[b], prepared.upper.numpy())
            for row in range(problem.rows):
                if not clock.running():
                    return self.result(problem, clock, upper=upper, status=Status.TIME_LIMIT)
                program = encode_rows(prepared, [row]).program.relaxed()
                limits = solvers.Limits(time_limit=max(clock.left, 0.01), threads=self.threads)
                solution = solver.solve(program, limits)
                # The duals are good to rounding; the allowance covers ours in recomputing the bound from them.
                bound = -solution.dual_bound
                upper[b, row] = min(upper[b, row], max(bound + 1e-10 * (1 + abs(bound)), 0.0))
                outcome = STATUSES[solution.status]
                if outcome is not Status.COMPLETE:
                    status, detail = outcome, solution.message
                    if outcome not in (Status.TIME_LIMIT, Status.NUMERICAL):
                        return self.result(problem, clock, upper=upper, status=status, detail=detail)
        return self.result(problem, clock, upper=upper, status=status, detail=detail)
