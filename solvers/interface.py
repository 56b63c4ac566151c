"""The interface of every solver: a back end says what it can do and how to run; the checking is shared."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from importlib import metadata
from typing import final

import numpy as np

from solvers.checks import TOLERANCE, conic_bound, loses_coefficients, lp_bound, violation
from solvers.program import ConicProgram, MixedIntegerProgram, Program, Vector
from solvers.running import Claim, OnProgress, Progress, supervise
from solvers.solution import Limits, Solution, SolveStatus


@functools.cache
def package_version(package: str) -> str:
    """The installed version of a package, "" if there is none. Read once: it costs as much as a small LP."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


@dataclass(frozen=True)
class Capabilities:
    """What a back end can do. dual_bound: a MILP stopped early still has a proved bound (an LP or conic
    program has one at its optimum in any case). start: takes a MIP start. cutoff: prunes with it (others
    apply it afterwards, with the same answer but no time saved). callbacks: streams incumbents and bounds
    into the trace while it runs. dual_tolerance: the reduced cost that it takes for zero, so that its dual
    bound may be too large by this times the ranges of the columns and of the rows. pruning: how much better
    than its best point a point of a MILP may be, whatever gap was asked for, and still be cut off unseen; the
    default is that of CBC, the largest of those known. largest: coefficients above it are too much for its word
    on a MILP to be believed; the default is that of CBC, which called optima 26 % too small with 6.6e11 and was
    right with a tenth of that."""

    lp: bool = False
    mip: bool = False
    conic: bool = False
    dual_bound: bool = False
    start: bool = False
    cutoff: bool = False
    callbacks: bool = False
    dual_tolerance: float = 1e-7
    pruning: float = 1e-5
    largest: float = 1e9


def dual_tolerance(solver: str) -> float:
    """The default reduced-cost tolerance of a solver behind another package: 1e-6, but 1e-7 for those known to be
    stricter (HiGHS, CBC, SCIP)."""
    name = solver.upper()
    return 1e-7 if any(strict in name for strict in ("HIGHS", "CBC", "SCIP")) else 1e-6


class Solver(ABC):
    """Abstract; every subclass is final. Solvers hold no state and may be used from several threads."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name by which solvers.get finds it."""

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities: ...

    @abstractmethod
    def is_available(self) -> bool:
        """True if it is installed here. Says nothing about a licence."""

    def absence(self) -> str:
        """Why it is not available, as a sentence; "" where its package is to be installed, and nothing else."""
        return ""

    @abstractmethod
    def licence(self) -> str:
        """One sentence on the licence as found on this machine."""

    @abstractmethod
    def version(self) -> str:
        """The version of the solver, or "" if it is not installed."""

    @abstractmethod
    def _run(self, program: Program, limits: Limits, start: Vector | None, cutoff: float, progress: Progress) -> Claim:
        """Solves in the current thread. cutoff is inf if there is none; who cannot use it ignores it."""

    @final
    def solve(
        self,
        program: Program,
        limits: Limits | None = None,
        start: Vector | None = None,
        cutoff: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> Solution:
        """Minimises `program` and returns what was proved, checked independently of the solver.

        start (n,): a point to begin from, NaN where unknown; used by MIP solvers that can, ignored by others.
        cutoff: only points with an objective under it are wanted. If there are none the status is CUTOFF, x is
            None and dual_bound is (at least) the cutoff. A solver that prunes with a cutoff proves nothing beyond
            it, so its dual bounds are taken as min(bound, cutoff).
        on_progress(seconds, best objective or inf, dual bound): called from the solving thread whenever either
            improves; returning True stops the solve with status INTERRUPTED. What it raises is raised here.

        Ctrl-C gives a Solution with status INTERRUPTED, not a KeyboardInterrupt. Raises ValueError for a
        start or cutoff that does not fit the program; everything else is a status.
        """
        limits = Limits() if limits is None else limits
        start = _checked_start(program, start)
        if cutoff is not None and math.isnan(cutoff):
            raise ValueError("cutoff is NaN")
        bar = math.inf if cutoff is None else float(cutoff)
        progress = Progress(cutoff=bar, on_progress=on_progress)
        if start is not None and violation(program, start) is None:
            progress.report(program.objective(start), -math.inf, start)
            progress.raise_error()
        refusal = self._refusal(program)
        if refusal is not None:
            claim = refusal
        else:
            claim = supervise(lambda: self._run(program, limits, start, bar, progress), progress, limits)
            claim = self._disambiguated(program, claim, limits, progress)
        status, x, bound, message = _checked(program, claim, limits, bar, progress)
        objective = None if x is None else program.objective(x)
        if x is not None:
            x.setflags(write=False)
        seconds = progress.seconds()
        return Solution(
            status=status,
            x=x,
            objective=objective,
            dual_bound=bound,
            nodes=max(claim.nodes, 0),
            seconds=seconds,
            solver=self.name,
            version=self.version(),
            trace=progress.closed_trace(seconds, objective, bound),
            message=message,
            multipliers=None if isinstance(program, ConicProgram) or program.is_mip else claim.y,
        )

    def _refusal(self, program: Program) -> Claim | None:
        if not self.is_available():
            return Claim(SolveStatus.NOT_INSTALLED, message=self.absence())
        can = self.capabilities
        if isinstance(program, ConicProgram):
            return (
                None if can.conic else Claim(SolveStatus.UNSUPPORTED, message=f"{self.name} solves no conic programs")
            )
        if program.is_mip and not can.mip:
            return Claim(SolveStatus.UNSUPPORTED, message=f"{self.name} handles no integer variables")
        if not program.is_mip and not can.lp:
            return Claim(SolveStatus.UNSUPPORTED, message=f"{self.name} solves no linear programs")
        if program.is_mip and loses_coefficients(program):
            message = "solvers drop coefficients of this size, which matter over the ranges of their columns"
            return Claim(SolveStatus.NUMERICAL_TROUBLE, message=message)
        return None

    def _disambiguated(self, program: Program, claim: Claim, limits: Limits, progress: Progress) -> Claim:
        """Turns 'infeasible or unbounded' into one of the two, by asking whether any point is feasible.

        'Unbounded' alone is asked about too: for a MILP it often speaks of the relaxation only, and conic
        solvers say it on seeing a direction of descent, without having seen a point.
        """
        if claim.status not in (SolveStatus.INFEASIBLE_OR_UNBOUNDED, SolveStatus.UNBOUNDED):
            return claim
        if not program.may_be_unbounded():
            return replace(claim, status=SolveStatus.INFEASIBLE)
        if isinstance(program, MixedIntegerProgram) and claim.status is SolveStatus.INFEASIBLE_OR_UNBOUNDED:
            ray = self._ask(program.recession(), limits, progress)
            if ray.status is SolveStatus.OPTIMAL and ray.x is not None and program.cost @ ray.x > -TOLERANCE:
                return replace(claim, status=SolveStatus.INFEASIBLE)
        plain = program.without_cost()
        point = self._ask(plain, limits, progress)
        if point.status is SolveStatus.OPTIMAL and point.x is not None and violation(plain, point.x) is None:
            return replace(claim, status=SolveStatus.UNBOUNDED)
        if point.status in (SolveStatus.INFEASIBLE, SolveStatus.INFEASIBLE_OR_UNBOUNDED):
            return replace(claim, status=SolveStatus.INFEASIBLE)
        return replace(claim, status=SolveStatus.INFEASIBLE_OR_UNBOUNDED)

    def _ask(self, program: Program, limits: Limits, progress: Progress) -> Claim:
        """A side question to the same solver, in the time that is left."""
        quiet = Progress(cutoff=math.inf, on_progress=None)
        short = replace(limits, time_limit=max(limits.time_limit - progress.seconds(), 0.01))
        return supervise(lambda: self._run(program, short, None, math.inf, quiet), quiet, short)


def _checked_start(program: Program, start: Vector | None) -> Vector | None:
    if start is None:
        return None
    start = np.array(start, dtype=np.float64)
    if start.shape != (program.num_variables,) or np.isinf(start).any():
        raise ValueError(
            f"start must be {program.num_variables} numbers (NaN where unknown), it has shape {start.shape}"
        )
    return None if np.isnan(start).all() else start


def _checked(
    program: Program, claim: Claim, limits: Limits, cutoff: float, progress: Progress
) -> tuple[SolveStatus, Vector | None, float, str]:
    """(status, x, dual bound, message) of a claim after checking it against the program."""
    status, message = claim.status, claim.message
    x = None if progress.x is None or violation(program, progress.x) is not None else progress.x
    if status in (SolveStatus.INFEASIBLE, SolveStatus.CUTOFF):
        if x is not None:
            value = program.objective(x)
            return _trouble(x, f"the solver says: {status.value} But a feasible point has objective {value!r}.")
        # A solver given a cutoff cannot tell 'no point' from 'no better point'.
        return (SolveStatus.INFEASIBLE if math.isinf(cutoff) else SolveStatus.CUTOFF), None, cutoff, message
    if status is SolveStatus.UNBOUNDED:
        return status, None, -math.inf, message
    if claim.x is not None:
        fault = violation(program, claim.x)
        if fault is None and (x is None or program.objective(claim.x) <= program.objective(x)):
            x = claim.x
        elif fault is not None and status is SolveStatus.OPTIMAL:
            return _trouble(None, f"the point called optimal is not feasible: {fault}")
    elif status is SolveStatus.OPTIMAL:
        return _trouble(None, "called optimal without a point")
    bound = max(min(_proved(program, claim, x), cutoff), progress.dual_bound)
    if x is None:
        return (SolveStatus.TIME_LIMIT_NO_POINT if status is SolveStatus.TIME_LIMIT else status), None, bound, message
    objective = program.objective(x)
    slack = TOLERANCE * (1.0 + abs(objective))
    if bound > objective + slack:
        return _trouble(x, f"the dual bound {bound!r} is above the value of a feasible point, {objective!r}")
    bound = min(bound, objective)
    closed = min(objective, cutoff) - bound <= max(limits.absolute_gap, limits.relative_gap * abs(objective)) + slack
    if status is SolveStatus.OPTIMAL and math.isfinite(bound) and not closed:
        status = SolveStatus.NUMERICAL_TROUBLE
        message = f"called optimal, but the proved bound leaves a gap of {objective - bound:.3g}"
    elif status is SolveStatus.NUMERICAL_TROUBLE and claim.y is not None and closed:
        # A solver that missed its own tolerances: its point and its multipliers, both checked here, decide.
        status, message = SolveStatus.OPTIMAL, ""
    if status is SolveStatus.TIME_LIMIT_NO_POINT:
        status = SolveStatus.TIME_LIMIT
    if objective >= cutoff:
        without = {SolveStatus.OPTIMAL: SolveStatus.CUTOFF, SolveStatus.TIME_LIMIT: SolveStatus.TIME_LIMIT_NO_POINT}
        return without.get(status, status), None, bound, message
    return status, np.array(x, dtype=np.float64), bound, message


def _trouble(x: Vector | None, message: str) -> tuple[SolveStatus, Vector | None, float, str]:
    """A contradiction: the solver's bounds are not to be believed, a checked point still is."""
    return SolveStatus.NUMERICAL_TROUBLE, None if x is None else np.array(x), -math.inf, message


def _proved(program: Program, claim: Claim, x: Vector | None) -> float:
    """The best lower bound the claim supports: our own from the duals where they are good, else the solver's
    word."""
    if isinstance(program, ConicProgram):
        return claim.dual_bound if claim.y is None else conic_bound(program, claim.y)
    if program.is_mip or claim.y is None:
        return claim.dual_bound
    own = lp_bound(program, claim.y)
    bounded = math.isfinite(own)
    if not isinstance(program, MixedIntegerProgram) or claim.status is not SolveStatus.OPTIMAL or x is None or bounded:
        return own
    # Free variables can make our bound -inf on a reduced cost of 1e-9: then the solver's word is all there
    # is.
    return claim.dual_bound
