"""Linear and conic programs (and MILPs where the solver takes them) through any solver cvxpy finds:
`cvxpy:NAME`."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from solvers import gurobi
from solvers.highs import refusal
from solvers.interface import Capabilities, Solver, dual_tolerance, package_version
from solvers.packages import missing, unfound
from solvers.program import ConicProgram, MixedIntegerProgram, Program, Vector, one_sided, smat_operator, svec
from solvers.running import Claim, Progress
from solvers.solution import Limits, SolveStatus

STATUSES: dict[str, SolveStatus] = {
    "optimal": SolveStatus.OPTIMAL,
    "optimal_inaccurate": SolveStatus.NUMERICAL_TROUBLE,
    "infeasible": SolveStatus.INFEASIBLE,
    "infeasible_inaccurate": SolveStatus.NUMERICAL_TROUBLE,
    "unbounded": SolveStatus.UNBOUNDED,
    "unbounded_inaccurate": SolveStatus.NUMERICAL_TROUBLE,
    "infeasible_or_unbounded": SolveStatus.INFEASIBLE_OR_UNBOUNDED,
    "user_limit": SolveStatus.TIME_LIMIT,
    "solver_error": SolveStatus.SOLVER_ERROR,
}

_SECONDS: dict[str, str] = {
    "CLARABEL": "time_limit",
    "SCS": "time_limit_secs",
    "HIGHS": "time_limit",
    "GUROBI": "TimeLimit",
}
"""How each solver spells its time limit; the others are stopped from outside."""

_ACCURACY: dict[str, dict[str, Any]] = {
    # Tighter than our own check of the answer; first-order solvers need the iterations that go with it.
    "CLARABEL": {"tol_gap_abs": 1e-9, "tol_gap_rel": 1e-9, "tol_feas": 1e-9},
    "SCS": {"eps_abs": 1e-9, "eps_rel": 1e-9, "max_iters": 1_000_000},
}


@final
@dataclass(frozen=True)
class Cvxpy(Solver):
    """solver: the name that cvxpy knows it by, in capitals."""

    solver: str

    @property
    def name(self) -> str:
        return f"cvxpy:{self.solver}"

    @property
    def capabilities(self) -> Capabilities:
        if not self.is_available():
            return Capabilities()
        from cvxpy.reductions.solvers.defines import SOLVER_MAP_CONIC

        interface = SOLVER_MAP_CONIC.get(self.solver)
        if interface is None:
            return Capabilities(lp=True)
        psd = any(cone.__name__ in ("PSD", "SvecPSD") for cone in interface.SUPPORTED_CONSTRAINTS)
        return Capabilities(
            lp=True, mip=bool(interface.MIP_CAPABLE), conic=psd, dual_tolerance=dual_tolerance(self.solver)
        )

    def is_available(self) -> bool:
        return self.solver in found()

    def absence(self) -> str:
        return unfound("cvxpy", self.solver)

    def licence(self) -> str:
        return "That of the solver behind cvxpy; cvxpy itself is Apache 2.0."

    def version(self) -> str:
        return "" if missing("cvxpy") else f"cvxpy {package_version('cvxpy')}"

    def _run(self, program: Program, limits: Limits, start: Vector | None, cutoff: float, progress: Progress) -> Claim:
        cp: Any = importlib.import_module("cvxpy")

        if isinstance(program, ConicProgram):
            problem, x, duals = _conic(program)
        elif self.solver == "HIGHS" and refusal(program):
            return Claim(SolveStatus.UNSUPPORTED, message=refusal(program))
        else:
            problem, x, duals = _linear(program)
        options = _options(self.solver, limits, limits.time_limit - progress.seconds(), program.is_mip)
        # The steps of Problem.solve, less its warnings: the status says the same, and turning warnings off is
        # not safe with solves in several threads.
        try:
            with _silent(self.solver) as environment:
                options |= environment
                data, chain, inverse = problem.get_problem_data(self.solver, solver_opts=options)
                raw = chain.solve_via_data(problem, data, warm_start=False, verbose=False, solver_opts=options)
                if self.solver == "GUROBI":
                    _raise_again(raw["model"])
                solution = chain.invert(raw, inverse)
        except cp.error.SolverError as error:
            return Claim(SolveStatus.SOLVER_ERROR, message=str(error))
        except gurobi.raised() as error:
            return Claim(gurobi.error_status(error.errno), message=str(error))
        if solution.status in STATUSES and solution.status != "solver_error":
            problem.unpack(solution)
        status = STATUSES.get(solution.status, SolveStatus.SOLVER_ERROR)
        if self.solver == "GUROBI" and status in (SolveStatus.TIME_LIMIT, SolveStatus.NUMERICAL_TROUBLE):
            # cvxpy has one word for all of its limits, of which Ctrl-C is one where Gurobi catches it itself.
            status = gurobi.STATUSES.get(raw["model"].Status, status)
        elif status is SolveStatus.TIME_LIMIT and progress.seconds() < 0.9 * limits.time_limit:
            status = SolveStatus.ITERATION_LIMIT
        if status is SolveStatus.NUMERICAL_TROUBLE and progress.seconds() >= 0.98 * limits.time_limit:
            # First-order solvers call a time-out inaccurate.
            status = SolveStatus.TIME_LIMIT
        point = None if x.value is None else np.array(x.value, dtype=np.float64)
        message = "the solver reached reduced accuracy only" if status is SolveStatus.NUMERICAL_TROUBLE else ""
        if status is not SolveStatus.OPTIMAL or point is None:
            # Duals of an unfinished solve still give a bound, if they are feasible.
            y = None if point is None or program.is_mip else duals()
            return Claim(status, point, y=y, message=message)
        objective = program.objective(point)
        if program.is_mip:
            return Claim(status, point, objective - max(limits.absolute_gap, limits.relative_gap * abs(objective)))
        return Claim(status, point, objective, y=duals())


_EXCLUDED = ("OSQP", "SCIPY")
"""OSQP 1.1.3 does not converge on small linear programs and crashed the process when called from several
threads. SCIPY is HiGHS once more, and what it says of unbounded integer programs arrives as an error without a
reason."""


def found() -> tuple[str, ...]:
    """The names of the solvers that cvxpy finds on this machine; empty without cvxpy."""
    if missing("cvxpy"):
        return ()
    cp: Any = importlib.import_module("cvxpy")
    return tuple(str(name) for name in cp.installed_solvers() if name not in _EXCLUDED)


def known() -> tuple[str, ...]:
    """The names of the solvers that cvxpy has interfaces for, found or not; empty without cvxpy."""
    if missing("cvxpy"):
        return ()
    from cvxpy.reductions.solvers.defines import SOLVER_MAP_CONIC, SOLVER_MAP_QP

    return tuple(str(name) for name in {**SOLVER_MAP_CONIC, **SOLVER_MAP_QP} if name not in _EXCLUDED)


@contextlib.contextmanager
def _silent(solver: str) -> Iterator[dict[str, Any]]:
    """Options under which a solver does not print its licence: Gurobi's environment does when it starts."""
    if solver != "GUROBI":
        yield {}
        return
    with importlib.import_module("gurobipy").Env(params={"OutputFlag": 0}) as environment:
        yield {"env": environment}


def _raise_again(model: Any) -> None:
    """What Gurobi raised when it was told to solve, which cvxpy drops: the model is then as it was before."""
    if gurobi.STATUSES.get(model.Status) is SolveStatus.SOLVER_ERROR:
        model.optimize()


def _options(solver: str, limits: Limits, left: float, mip: bool) -> dict[str, Any]:
    options: dict[str, Any] = dict(_ACCURACY.get(solver, {}))
    if math.isfinite(left) and solver in _SECONDS:
        options[_SECONDS[solver]] = max(left, 0.01)
    if solver == "HIGHS":
        options["threads"] = limits.threads
        if mip:
            options |= {"mip_rel_gap": limits.relative_gap, "mip_abs_gap": limits.absolute_gap}
    if solver == "GUROBI":
        options["Threads"] = limits.threads
        if mip:
            options |= {"MIPGap": limits.relative_gap, "MIPGapAbs": limits.absolute_gap}
    return options


def _linear(program: MixedIntegerProgram) -> tuple[Any, Any, Any]:
    cp: Any = importlib.import_module("cvxpy")

    n = program.num_variables
    # Integer variables are a vector of their own, which is cheaper for cvxpy than an integer mask.
    order = np.argsort(~program.integrality, kind="stable")
    count = int(program.integrality.sum())
    parts = [cp.Variable(count, integer=True)] if count else []
    parts += [cp.Variable(n - count)] if count < n else []
    inverse = np.empty(n, dtype=np.intp)
    inverse[order] = np.arange(n)
    x = cp.hstack(parts)[inverse] if count else parts[0]
    rows = one_sided(program)
    below, above = np.flatnonzero(np.isfinite(program.lower)), np.flatnonzero(np.isfinite(program.upper))
    equal = [rows.A_eq @ x == rows.b_eq] if len(rows.b_eq) else []
    less = [rows.A_ub @ x <= rows.b_ub] if len(rows.b_ub) else []
    bounds = [x[below] >= program.lower[below]] if len(below) else []
    bounds += [x[above] <= program.upper[above]] if len(above) else []
    problem = cp.Problem(cp.Minimize(program.cost @ x + program.offset), [*equal, *less, *bounds])

    def duals() -> Vector | None:
        # cvxpy's multipliers have the opposite sign of ours: it adds y (A x - b) to the objective.
        pieces = [-np.ravel(c[0].dual_value) if c and c[0].dual_value is not None else None for c in (equal, less)]
        if (equal and pieces[0] is None) or (less and pieces[1] is None):
            return None
        zeros = np.zeros(0)
        y_eq, y_ub = (zeros if piece is None else piece for piece in pieces)
        return rows.row_duals(y_eq, y_ub, program.num_rows)

    return problem, x, duals


def _conic(program: ConicProgram) -> tuple[Any, Any, Any]:
    cp: Any = importlib.import_module("cvxpy")

    cones = program.cones
    x = cp.Variable(program.num_variables)
    A, b = program.A, program.b
    edge = cones.zero + cones.nonneg
    second_order, psd = cones.slices()
    zero = [A[: cones.zero] @ x == b[: cones.zero]] if cones.zero else []
    sign = [A[cones.zero : edge] @ x <= b[cones.zero : edge]] if cones.nonneg else []
    balls = []
    for rows in second_order:
        s = b[rows] - A[rows] @ x
        balls.append(cp.SOC(s[0], s[1:]) if rows.stop - rows.start > 1 else s[0] >= 0)
    matrices = []
    for rows, k in zip(psd, cones.psd, strict=True):
        T = smat_operator(k)
        matrices.append(cp.reshape(T @ b[rows] - (T @ A[rows]) @ x, (k, k), order="C") >> 0)
    problem = cp.Problem(cp.Minimize(program.cost @ x + program.offset), [*zero, *sign, *balls, *matrices])

    def duals() -> Vector | None:
        if any(c.dual_value is None for c in (*zero, *sign, *balls, *matrices)):
            return None
        parts = [np.ravel(c.dual_value) for c in (*zero, *sign)]
        for ball in balls:
            value = ball.dual_value
            parts.append(np.concatenate([np.ravel(v) for v in value]) if isinstance(value, list) else np.ravel(value))
        parts += [svec((m.dual_value + m.dual_value.T) / 2) for m in matrices]
        y = np.concatenate(parts) if parts else np.zeros(0)
        return y.astype(np.float64) if y.shape == program.b.shape else None

    return problem, x, duals
