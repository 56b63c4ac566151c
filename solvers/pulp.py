"""Any solver that PuLP finds on this machine, through PuLP: `pulp:NAME`, for example pulp:COIN_CMD or
pulp:HiGHS.

PuLP hands on no dual bounds, takes no cutoff and cannot be stopped, and says "Optimal" after a time-out (only
sol_status differs, and not for every solver). So a MILP stopped early has no proved bound here, and an
optimum that came later than the time limit is not called one.
"""

from __future__ import annotations

import contextlib
import functools
import math
import warnings
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from solvers import ctrl_c, gurobi
from solvers.highs import refusal
from solvers.interface import Capabilities, Solver, dual_tolerance, package_version
from solvers.packages import missing, unfound
from solvers.program import MixedIntegerProgram, OneSidedRows, Program, Vector, one_sided
from solvers.running import Claim, Progress
from solvers.solution import Limits, SolveStatus

STATUSES: dict[tuple[int, int], SolveStatus] = {
    # (status, sol_status)
    (1, 1): SolveStatus.OPTIMAL,
    (1, 2): SolveStatus.TIME_LIMIT,
    (1, 0): SolveStatus.TIME_LIMIT,
    (0, 2): SolveStatus.TIME_LIMIT,
    (0, 1): SolveStatus.TIME_LIMIT,
    (0, 0): SolveStatus.TIME_LIMIT,
    (0, -1): SolveStatus.TIME_LIMIT,
    (-2, -2): SolveStatus.UNBOUNDED,
    (-3, -1): SolveStatus.SOLVER_ERROR,
}
"""Anything with status -1 is INFEASIBLE_OR_UNBOUNDED: most of PuLP's drivers fold the two into one."""


@final
@dataclass(frozen=True)
class Pulp(Solver):
    """solver: the name that PuLP knows it by."""

    solver: str

    @property
    def name(self) -> str:
        return f"pulp:{self.solver}"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(lp=True, mip=True, dual_tolerance=dual_tolerance(self.solver))

    def is_available(self) -> bool:
        return self.solver in found()

    def absence(self) -> str:
        return unfound("PuLP", self.solver)

    def licence(self) -> str:
        return "That of the solver behind PuLP; PuLP itself is BSD."

    def version(self) -> str:
        return "" if missing("pulp") else f"PuLP {package_version('pulp')}"

    def _run(self, program: Program, limits: Limits, start: Vector | None, cutoff: float, progress: Progress) -> Claim:
        assert isinstance(program, MixedIntegerProgram)
        import pulp

        if self.solver in ("HiGHS", "HiGHS_CMD") and refusal(program):
            return Claim(SolveStatus.UNSUPPORTED, message=refusal(program))
        rows = one_sided(program)
        problem, variables, constraints = _model(program, rows)
        options: dict[str, Any] = {"msg": False}
        if math.isfinite(limits.time_limit):
            options["timeLimit"] = max(limits.time_limit - progress.seconds(), 0.01)
        if program.is_mip:
            options |= {"gapRel": limits.relative_gap}
            if "CBC" in self.solver or self.solver == "COIN_CMD":
                options["options"] = ["preprocess off"]  # it gives wrong optima: solvers/cbc.py
        managed = self.solver == "GUROBI"
        if managed:  # in an environment of its own, as the usual one prints its licence
            options |= {"manageEnv": True, "envOptions": {"OutputFlag": 0}}
        began = progress.seconds()
        try:
            solver = pulp.getSolver(self.solver, **options)
            with contextlib.closing(solver) if managed else contextlib.nullcontext():
                problem.solve(solver)
                if managed:
                    ended = gurobi.STATUSES.get(problem.solverModel.Status, SolveStatus.SOLVER_ERROR)
        except pulp.PulpSolverError as error:
            return Claim(SolveStatus.SOLVER_ERROR, message=str(error))
        except gurobi.raised() as error:  # which PuLP lets through
            return Claim(gurobi.error_status(error.errno), message=str(error))
        status = STATUSES.get((problem.status, problem.sol_status), SolveStatus.SOLVER_ERROR)
        if problem.status == pulp.LpStatusInfeasible:
            status = SolveStatus.INFEASIBLE_OR_UNBOUNDED
        allowed = limits.time_limit - began
        if managed and status is SolveStatus.TIME_LIMIT:
            status = ended  # PuLP has one word for all of its limits, as cvxpy
        elif status is SolveStatus.OPTIMAL and progress.seconds() - began >= 0.98 * allowed:
            status = SolveStatus.TIME_LIMIT
        elif status is SolveStatus.TIME_LIMIT and progress.seconds() - began < 0.5 * allowed:
            status = SolveStatus.SOLVER_ERROR
        values = [v.varValue for v in variables]
        x = None if any(v is None for v in values) else np.array(values, dtype=np.float64)
        if x is None or not np.isfinite(x).all() or status is SolveStatus.SOLVER_ERROR:
            return Claim(status)
        if status is not SolveStatus.OPTIMAL:
            return Claim(status, x)
        objective = program.objective(x)
        if program.is_mip:
            return Claim(status, x, objective - max(limits.absolute_gap, limits.relative_gap * abs(objective)))
        duals = np.array([0.0 if c.pi is None else float(c.pi) for c in constraints])
        split = len(rows.b_eq)
        return Claim(status, x, objective, y=rows.row_duals(duals[:split], duals[split:], program.num_rows))


_DEPRECATED = ("PULP_CBC_CMD",)
"""Not listed: it warns on every use, and `pulp` runs the same binary with more of its answer kept."""


@functools.cache
def found() -> tuple[str, ...]:
    """The names of the solvers that PuLP finds on this machine; empty without PuLP.

    Looked for once a process: PuLP tries each solver, which starts an environment of Gurobi.
    """
    if missing("pulp"):
        return ()
    import pulp

    with warnings.catch_warnings(), ctrl_c.kept():
        warnings.simplefilter("ignore")
        return tuple(name for name in pulp.listSolvers(onlyAvailable=True) if name not in _DEPRECATED)


@functools.cache
def known() -> tuple[str, ...]:
    """The names of the solvers that PuLP has drivers for, found or not; empty without PuLP."""
    if missing("pulp"):
        return ()
    import pulp

    return tuple(name for name in pulp.listSolvers() if name not in _DEPRECATED)


def _model(program: MixedIntegerProgram, rows: OneSidedRows) -> tuple[Any, list[Any], list[Any]]:
    import pulp

    problem = pulp.LpProblem("model", pulp.LpMinimize)

    def bound(value: float) -> float | None:
        return value if math.isfinite(value) else None

    variables = [
        problem.add_variable(f"x{j}", bound(low), bound(high), pulp.LpInteger if whole else pulp.LpContinuous)
        for j, (low, high, whole) in enumerate(
            zip(program.lower.tolist(), program.upper.tolist(), program.integrality.tolist(), strict=True)
        )
    ]
    # The objective names every variable, so that those without a coefficient are still part of the model.
    problem.setObjective(pulp.LpAffineExpression(list(zip(variables, program.cost.tolist(), strict=True))))
    constraints: list[Any] = []
    pieces = ((rows.A_eq, rows.b_eq, pulp.LpConstraintEQ), (rows.A_ub, rows.b_ub, pulp.LpConstraintLE))
    for matrix, right, sense in pieces:
        starts, indices, data = matrix.indptr.tolist(), matrix.indices.tolist(), matrix.data.tolist()
        for i, value in enumerate(right.tolist()):
            terms = [(variables[indices[k]], data[k]) for k in range(starts[i], starts[i + 1])]
            constraint = pulp.LpConstraint(pulp.LpAffineExpression(terms), sense, f"r{len(constraints)}", value)
            problem.addConstraint(constraint)
            constraints.append(constraint)
    return problem, variables, constraints
