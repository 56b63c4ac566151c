"""Gurobi through gurobipy's matrix interface. Optional; the licence that pip brings allows 2,000 variables
and rows.

Every solve has an environment of its own, so solves in several threads share nothing and output stays off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from solvers import ctrl_c
from solvers.interface import Capabilities, Solver, package_version
from solvers.packages import missing
from solvers.program import MixedIntegerProgram, OneSidedRows, Program, Vector, one_sided
from solvers.running import Claim, Progress
from solvers.solution import Limits, SolveStatus

STATUSES: dict[int, SolveStatus] = {
    1: SolveStatus.SOLVER_ERROR,  # LOADED: never optimised
    2: SolveStatus.OPTIMAL,
    3: SolveStatus.INFEASIBLE,
    4: SolveStatus.INFEASIBLE_OR_UNBOUNDED,
    5: SolveStatus.UNBOUNDED,
    6: SolveStatus.CUTOFF,
    7: SolveStatus.ITERATION_LIMIT,
    8: SolveStatus.NODE_LIMIT,
    9: SolveStatus.TIME_LIMIT,
    10: SolveStatus.NODE_LIMIT,  # SOLUTION_LIMIT: we never set one
    11: SolveStatus.INTERRUPTED,
    12: SolveStatus.NUMERICAL_TROUBLE,  # NUMERIC
    13: SolveStatus.NUMERICAL_TROUBLE,  # SUBOPTIMAL
    14: SolveStatus.INTERRUPTED,  # INPROGRESS
    15: SolveStatus.CUTOFF,  # USER_OBJ_LIMIT: we never set one
    16: SolveStatus.TIME_LIMIT,  # WORK_LIMIT: we never set one
    17: SolveStatus.OUT_OF_MEMORY,
    18: SolveStatus.OPTIMAL,  # LOCALLY_OPTIMAL: nonlinear models only
    19: SolveStatus.INFEASIBLE,  # LOCALLY_INFEASIBLE: nonlinear models only
}
_ERRORS = {10001: SolveStatus.OUT_OF_MEMORY, 10009: SolveStatus.NO_LICENCE, 10010: SolveStatus.LICENCE_TOO_SMALL}


def error_status(code: int) -> SolveStatus:
    """The status for a gurobipy error number."""
    return _ERRORS.get(code, SolveStatus.SOLVER_ERROR)


def raised() -> tuple[type[Any], ...]:
    """What gurobipy raises, also through packages that call it; nothing where it is not installed."""
    if missing("gurobipy"):
        return ()
    import gurobipy as gp

    return (gp.GurobiError,)


@final
@dataclass(frozen=True)
class Gurobi(Solver):
    @property
    def name(self) -> str:
        return "gurobi"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            lp=True, mip=True, dual_bound=True, start=True, cutoff=True, callbacks=True, dual_tolerance=1e-6
        )

    def is_available(self) -> bool:
        return not missing("gurobipy")

    def version(self) -> str:
        return package_version("gurobipy") if self.is_available() else ""

    def licence(self) -> str:
        """Found by trying: a program just above the size limit tells the kinds of licence apart."""
        if not self.is_available():
            return SolveStatus.NOT_INSTALLED.value
        import gurobipy as gp

        try:
            with ctrl_c.kept(), gp.Env(params={"OutputFlag": 0}) as env, gp.Model(env=env) as model:
                model.addMVar(2001)
                model.optimize()
        except gp.GurobiError as error:
            if error_status(error.errno) is SolveStatus.LICENCE_TOO_SMALL:
                return "Size-limited licence of 2,000 variables and rows; academics get a full one free."
            return f"{error_status(error.errno).value} ({error})"
        return "Full licence."

    def _run(self, program: Program, limits: Limits, start: Vector | None, cutoff: float, progress: Progress) -> Claim:
        import gurobipy as gp

        assert isinstance(program, MixedIntegerProgram)
        parameters: dict[str, str | int | float] = {
            "OutputFlag": 0,
            "Threads": limits.threads,
            "MIPGap": limits.relative_gap,
            "MIPGapAbs": limits.absolute_gap,
            # Tighter than the tolerance of our own check, so that an honest point passes it.
            "FeasibilityTol": 1e-7,
            "IntFeasTol": 1e-7,
        }
        if math.isfinite(limits.time_limit):
            parameters["TimeLimit"] = limits.time_limit
        if limits.node_limit is not None:
            parameters["NodeLimit"] = limits.node_limit
        if program.is_mip and math.isfinite(cutoff):
            parameters["Cutoff"] = cutoff
        try:
            with gp.Env(params=parameters) as env, gp.Model(env=env) as model:
                return _solve(model, program, start, progress)
        except gp.GurobiError as error:
            return Claim(error_status(error.errno), message=str(error))


def _solve(model: Any, program: MixedIntegerProgram, start: Vector | None, progress: Progress) -> Claim:
    from gurobipy import GRB

    kinds = np.where(program.integrality, GRB.INTEGER, GRB.CONTINUOUS)
    x = model.addMVar(program.num_variables, lb=program.lower, ub=program.upper, obj=program.cost, vtype=kinds)
    model.ObjCon = program.offset
    rows = one_sided(program)
    equal = model.addMConstr(rows.A_eq, x, GRB.EQUAL, rows.b_eq) if len(rows.b_eq) else None
    below = model.addMConstr(rows.A_ub, x, GRB.LESS_EQUAL, rows.b_ub) if len(rows.b_ub) else None
    if start is not None and program.is_mip:
        x.Start = np.where(np.isnan(start), GRB.UNDEFINED, start)
    model.optimize(_callback(x, progress, program.is_mip))
    status = STATUSES.get(model.Status, SolveStatus.SOLVER_ERROR)
    point = np.array(x.X) if model.SolCount > 0 else None
    if program.is_mip:
        known = status not in (SolveStatus.INFEASIBLE, SolveStatus.UNBOUNDED, SolveStatus.INFEASIBLE_OR_UNBOUNDED)
        bound = float(model.ObjBound) if known else -math.inf
        return Claim(status, point, bound if abs(bound) < GRB.INFINITY else -math.inf, int(model.NodeCount))
    if status is not SolveStatus.OPTIMAL:
        return Claim(status, point)
    return Claim(status, point, float(model.ObjVal), y=_duals(rows, equal, below, program.num_rows))


def _duals(rows: OneSidedRows, equal: Any, below: Any, num_rows: int) -> Vector:
    pieces = [np.zeros(0) if part is None else np.array(part.Pi) for part in (equal, below)]
    return rows.row_duals(pieces[0], pieces[1], num_rows)


def _callback(x: Any, progress: Progress, mip: bool) -> Any:
    from gurobipy import GRB

    def bounded(value: float) -> float:
        return value if abs(value) < GRB.INFINITY else math.copysign(math.inf, value)

    taken_back = False

    def callback(model: Any, where: int) -> None:
        nonlocal taken_back
        if not taken_back:  # Ctrl-C belongs to the thread that waits for this solve (solvers/running.py)
            ctrl_c.take_back()
            taken_back = True
        stop = progress.must_stop()
        if mip and where == GRB.Callback.MIPSOL:
            progress.nodes = int(model.cbGet(GRB.Callback.MIPSOL_NODCNT))
            objective, bound = model.cbGet(GRB.Callback.MIPSOL_OBJ), model.cbGet(GRB.Callback.MIPSOL_OBJBND)
            stop = progress.report(float(objective), bounded(float(bound)), np.array(model.cbGetSolution(x)))
        elif mip and where == GRB.Callback.MIP:
            progress.nodes = int(model.cbGet(GRB.Callback.MIP_NODCNT))
            stop = progress.report(math.inf, bounded(float(model.cbGet(GRB.Callback.MIP_OBJBND))))
        if stop:
            model.terminate()

    return callback
