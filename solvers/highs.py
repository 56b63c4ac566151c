"""HiGHS through highspy, arrays passed directly. The default solver.

Known troubles and what is done about them:
- 1.14.0 returns suboptimal points as optimal (HiGHS issues 2957, 3043, 3073): the requirement excludes it.
- 1.15.1 returns wrong optima on MILPs with integer variables that have an infinite bound, with presolve
  (issue 3274, and 2 of 3,000 small random programs here) and without (1 of 3,000). Such programs are refused:
  give every integer variable finite bounds.
- With bounded integers but some unbounded continuous variables, 1 of 8,000 small MILPs was called optimal and
  is unbounded. An optimum of such a MILP is believed only if a second solve without presolve agrees. With all
  variables bounded nothing was wrong: 0 of 4,000 against Gurobi, 0 of 12,000 with presolve against without.
- What it drops (``small_matrix_value``, 1e-9 unless asked otherwise) has to be far below what points may violate: with
  both at 1e-9 most programs of some small convolutional networks ended with a wrong optimum, up to 30 % off, with
  presolve and without, in 1.15.1 and 1.16.0 (``tests/methods/test_milp.py`` has one).
- MIP presolve has called feasible programs infeasible in most releases (issues 2388, 2585, 3090):
  'infeasible' for a MILP is believed only after a second solve without presolve.
- With an objective cutoff under the optimum it says optimal with a bound that holds only up to the cutoff;
  the shared check takes min(bound, cutoff) and calls it CUTOFF.
- Presolve's aggregator does not look at the clock: an LP of 28,000 rows and 435,000 entries with a limit of 8 s spent
  20 s in it, and 2 s in all without it. It is off for programs of that size with a time limit.
- Setting `threads` fails in a thread whose worker pool exists with another size. Every solve runs in a new
  thread (solvers.running), whose pool starts and ends with it; the process-wide resetGlobalScheduler is never
  needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, final

import highspy
import numpy as np

from solvers.interface import Capabilities, Solver, package_version
from solvers.program import MixedIntegerProgram, Program, Vector
from solvers.running import Claim, Progress
from solvers.solution import Limits, SolveStatus

_FEASIBILITY = 1e-7
"""What a point of a MILP may violate."""
_EPSILON = 1e-12
"""The least ``small_matrix_value`` that HiGHS takes: it drops coefficients up to this size, also those of its own cuts
and reductions, and reports bounds of MILPs of that size as 0. It has to be far below what points may violate."""
_REDUCED = 1e-10
"""By what reduced costs and multipliers may have the wrong sign in linear programs and in presolve: the least that
HiGHS knows. It gives a MILP's linear programs a tenth of what points may violate."""
_AGGREGATOR = 1 << 12
"""Its bit in the option ``presolve_rule_off``."""
_AGGREGATED = 200_000
"""Entries of a program up to which the aggregator is over in well under a second."""

_S: Any = highspy.HighsModelStatus
STATUSES: dict[Any, SolveStatus] = {
    _S.kNotset: SolveStatus.SOLVER_ERROR,
    _S.kLoadError: SolveStatus.SOLVER_ERROR,
    _S.kModelError: SolveStatus.SOLVER_ERROR,
    _S.kPresolveError: SolveStatus.SOLVER_ERROR,
    _S.kSolveError: SolveStatus.SOLVER_ERROR,
    _S.kPostsolveError: SolveStatus.SOLVER_ERROR,
    _S.kModelEmpty: SolveStatus.OPTIMAL,
    _S.kOptimal: SolveStatus.OPTIMAL,
    _S.kInfeasible: SolveStatus.INFEASIBLE,
    _S.kUnboundedOrInfeasible: SolveStatus.INFEASIBLE_OR_UNBOUNDED,
    _S.kUnbounded: SolveStatus.UNBOUNDED,
    _S.kObjectiveBound: SolveStatus.CUTOFF,
    _S.kObjectiveTarget: SolveStatus.CUTOFF,
    _S.kTimeLimit: SolveStatus.TIME_LIMIT,
    _S.kIterationLimit: SolveStatus.ITERATION_LIMIT,
    _S.kUnknown: SolveStatus.NUMERICAL_TROUBLE,
    _S.kSolutionLimit: SolveStatus.NODE_LIMIT,  # also what it says when mip_max_nodes is reached
    _S.kInterrupt: SolveStatus.INTERRUPTED,
    _S.kHighsInterrupt: SolveStatus.INTERRUPTED,
    _S.kMemoryLimit: SolveStatus.OUT_OF_MEMORY,
}


@final
@dataclass(frozen=True)
class Highs(Solver):
    """presolve: False switches it off (slower, rules out its bugs)."""

    presolve: bool = True

    @property
    def name(self) -> str:
        return "highs"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            lp=True, mip=True, dual_bound=True, start=True, cutoff=True, callbacks=True,
            dual_tolerance=_FEASIBILITY / 10, pruning=_FEASIBILITY + _EPSILON,
            largest=1e15,  # what it refuses itself (large_matrix_value)
        )  # fmt: skip

    def is_available(self) -> bool:
        return True

    def licence(self) -> str:
        return "MIT licence, no limits."

    def version(self) -> str:
        return package_version("highspy")

    def _run(self, program: Program, limits: Limits, start: Vector | None, cutoff: float, progress: Progress) -> Claim:
        assert isinstance(program, MixedIntegerProgram)
        reason = refusal(program)
        if reason:
            return Claim(SolveStatus.UNSUPPORTED, message=reason)
        claim = _solve(program, limits, start, cutoff, progress, self.presolve)
        if self.presolve and program.is_mip and claim.status is SolveStatus.INFEASIBLE:
            left = max(limits.time_limit - progress.seconds(), 0.0)
            if left == 0.0:
                message = "HiGHS says infeasible, but there was no time to confirm it without presolve"
                return Claim(SolveStatus.TIME_LIMIT, message=message)
            claim = _solve(program, replace(limits, time_limit=left), start, cutoff, progress, presolve=False)
        elif self.presolve and program.is_mip and claim.status is SolveStatus.OPTIMAL and not _is_bounded(program):
            left = max(limits.time_limit - progress.seconds(), 0.01)
            again = _solve(program, replace(limits, time_limit=left), start, cutoff, progress, presolve=False)
            claim = _agreed(program, claim, again)
        return claim


def refusal(program: MixedIntegerProgram) -> str:
    """Why no HiGHS should be trusted with this program, also behind PuLP, cvxpy or scipy; "" if nothing is
    known."""
    whole = program.integrality
    if np.isfinite(program.lower[whole]).all() and np.isfinite(program.upper[whole]).all():
        return ""
    return "HiGHS gives wrong optima with unbounded integer variables: give each one finite bounds"


def _is_bounded(program: MixedIntegerProgram) -> bool:
    return bool(np.isfinite(program.lower).all() and np.isfinite(program.upper).all())


def _agreed(program: MixedIntegerProgram, first: Claim, second: Claim) -> Claim:
    """One claim from two solves of a MILP, of which the first said optimal: their weaker bound, or
    trouble."""
    nodes = first.nodes + second.nodes
    if second.status in (SolveStatus.OPTIMAL, SolveStatus.TIME_LIMIT, SolveStatus.NODE_LIMIT, SolveStatus.INTERRUPTED):
        best = min((c for c in (first, second) if c.x is not None), key=lambda c: program.objective(_point(c)))
        proved = min(first.dual_bound, second.dual_bound)
        if second.status is not SolveStatus.OPTIMAL:
            return replace(second, x=best.x, dual_bound=proved, nodes=nodes)
        # Both may be off by the gap asked for and by their tolerances; wrong optima were off by far more.
        values = [program.objective(_point(c)) for c in (first, second)]
        if abs(values[0] - values[1]) <= 1e-5 * (1.0 + abs(values[0])):
            return replace(best, dual_bound=proved, nodes=nodes)
    message = f"with presolve HiGHS says optimal, without it: {second.status.value} The two do not agree."
    return Claim(SolveStatus.NUMERICAL_TROUBLE, nodes=nodes, message=message)


def _point(claim: Claim) -> Vector:
    if claim.x is None:
        raise ValueError("HiGHS called a program optimal and gave no point")
    return claim.x


def _solve(
    program: MixedIntegerProgram,
    limits: Limits,
    start: Vector | None,
    cutoff: float,
    progress: Progress,
    presolve: bool,
) -> Claim:
    # The class under highspy.Highs: the latter keeps locks shared by all its instances.
    highs = highspy._core._Highs()
    highs.setOptionValue("output_flag", False)
    options: dict[str, bool | int | float | str] = {
        "presolve": "choose" if presolve else "off",
        "threads": limits.threads,
        "time_limit": limits.time_limit,
        "mip_rel_gap": limits.relative_gap,
        "mip_abs_gap": limits.absolute_gap,
        "dual_feasibility_tolerance": _REDUCED,
    }
    if program.is_mip:
        # What is better than the best point by less than this is cut off: in programs of small objectives an optimum
        # may be.
        options |= {"mip_feasibility_tolerance": _FEASIBILITY, "small_matrix_value": _EPSILON}
    if math.isfinite(limits.time_limit) and program.A.nnz > _AGGREGATED:
        options["presolve_rule_off"] = _AGGREGATOR
    if limits.node_limit is not None:
        options["mip_max_nodes"] = limits.node_limit
    if program.is_mip and math.isfinite(cutoff):
        options["objective_bound"] = cutoff
    for option, value in options.items():
        if highs.setOptionValue(option, value) != highspy.HighsStatus.kOk:
            return Claim(SolveStatus.SOLVER_ERROR, message=f"HiGHS refused the option {option} = {value}")
    if _pass_model(highs, program) == highspy.HighsStatus.kError:
        return Claim(SolveStatus.SOLVER_ERROR, message="HiGHS refused the program")
    if start is not None and program.is_mip:
        known = np.flatnonzero(~np.isnan(start)).astype(np.int32)
        highs.setSolution(len(known), known, start[known])
    _listen(highs, progress, program.is_mip)
    outcome = highs.run()
    info = highs.getInfo()
    model_status = highs.getModelStatus()
    status = STATUSES[model_status]
    if outcome == highspy.HighsStatus.kError and status is SolveStatus.OPTIMAL:
        status = SolveStatus.SOLVER_ERROR
    solution = highs.getSolution()
    feasible = info.primal_solution_status == int(highspy.SolutionStatus.kSolutionStatusFeasible)
    x = np.array(solution.col_value) if feasible and solution.value_valid else None
    nodes = max(int(info.mip_node_count), 0)
    if program.is_mip:
        bound = (
            float(info.mip_dual_bound)
            if status not in (SolveStatus.INFEASIBLE, SolveStatus.SOLVER_ERROR)
            else -math.inf
        )
        return Claim(status, x, bound if bound < math.inf else -math.inf, nodes)
    y = np.array(solution.row_dual) if solution.dual_valid else None
    objective = program.objective(x) if status is SolveStatus.OPTIMAL and x is not None else -math.inf
    return Claim(status, x, objective, y=y)


def _pass_model(highs: Any, program: MixedIntegerProgram) -> Any:
    A = program.A
    arrays = [program.cost, program.lower, program.upper, program.row_lower, program.row_upper]
    sparse = [A.indptr.astype(np.int32), A.indices.astype(np.int32), A.data]
    shape = (program.num_variables, program.num_rows, A.nnz, int(highspy.MatrixFormat.kRowwise))
    sense = int(highspy.ObjSense.kMinimize)
    integrality = program.integrality.astype(np.int32)
    return highs.passModel(*shape, sense, program.offset, *arrays, *sparse, integrality)


def _listen(highs: Any, progress: Progress, mip: bool) -> None:
    """Streams HiGHS's callbacks into `progress` and lets it stop the solve."""
    kinds = highspy.cb.HighsCallbackType
    improving = int(kinds.kCallbackMipImprovingSolution)

    def callback(kind: int, _message: str, out: Any, into: Any, _data: Any) -> None:
        stop = progress.must_stop()
        if mip:
            progress.nodes = max(progress.nodes, int(out.mip_node_count))
            x = np.array(out.mip_solution) if kind == improving else None
            objective = float(out.objective_function_value) if kind == improving else math.inf
            stop = progress.report(objective, float(out.mip_dual_bound), x)
        if kind != improving:
            into.user_interrupt = stop

    highs.setCallback(callback, None)
    if mip:
        highs.startCallback(kinds.kCallbackMipImprovingSolution)
        highs.startCallback(kinds.kCallbackMipInterrupt)
    else:
        highs.startCallback(kinds.kCallbackSimplexInterrupt)
        highs.startCallback(kinds.kCallbackIpmInterrupt)
