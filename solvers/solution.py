"""What a solver answers: a status whose value is the sentence to show, and a frozen Solution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from solvers.program import Vector


class SolveStatus(Enum):
    """Why a solver stopped. The value of each member is the sentence for a person."""

    OPTIMAL = "Optimal: the point is feasible and its objective is proved to be within the gap of the minimum."
    TIME_LIMIT = "Stopped at the time limit with a feasible point."
    TIME_LIMIT_NO_POINT = "Stopped at the time limit before a feasible point was found."
    NODE_LIMIT = "Stopped at the limit on nodes."
    ITERATION_LIMIT = "Stopped at the solver's own limit on iterations."
    INTERRUPTED = "Interrupted by the user; what was proved until then stands."
    CUTOFF = "Cutoff reached: no feasible point is better than the cutoff."
    INFEASIBLE = "Infeasible: no point satisfies the constraints."
    UNBOUNDED = "Unbounded: the constraints let the objective fall without limit."
    INFEASIBLE_OR_UNBOUNDED = "Infeasible or unbounded; the solver could not tell which."
    NUMERICAL_TROUBLE = (
        "Numerical trouble: what the solver claims does not hold when checked, or it gave up on accuracy."
    )
    LICENCE_TOO_SMALL = (
        "Licence too small: the program exceeds what this solver's licence allows. "
        "Install a full licence (free for academics) or use another solver, for example highs."
    )
    NO_LICENCE = "No licence: the solver is installed but found no valid licence. Install one or use another solver."
    NOT_INSTALLED = "Not installed: the Python package or program of this solver was not found on this machine."
    UNSUPPORTED = "Unsupported: this solver does not handle this kind of program."
    OUT_OF_MEMORY = "The solver ran out of memory."
    SOLVER_ERROR = "The solver failed with an error of its own."

    @property
    def is_proof(self) -> bool:
        """True if nothing is left open: optimal, infeasible, unbounded or nothing better than the cutoff."""
        return self in (SolveStatus.OPTIMAL, SolveStatus.INFEASIBLE, SolveStatus.UNBOUNDED, SolveStatus.CUTOFF)


Trace = tuple[tuple[float, float, float], ...]


@dataclass(frozen=True, eq=False)
class Solution:
    """What one solve proved.

    x: best feasible point found, (n,), re-checked against the program independently of the solver, or None.
    objective: cost @ x + offset, recomputed from x; None without x.
    dual_bound: a proved lower bound on the minimum, -inf if there is none, +inf if infeasible. With a cutoff
    it is at
        most the cutoff unless a bound beyond it was proved, and x is None unless it is better than the
        cutoff.
    multipliers: of the rows of a linear program, (m,), as the solver gave them and unchecked: whoever builds on them
        evaluates them (solvers.checks.lp_bound does). None for other programs and where there are none.
    nodes: branch-and-bound nodes (0 for an LP or where the solver does not say).
    seconds: wall time of the whole call.
    trace: (seconds, best objective or inf, dual bound) in time order; the objective never rises, the bound
    never falls. message: details in words beyond the status, may be empty.
    """

    status: SolveStatus
    x: Vector | None
    objective: float | None
    dual_bound: float
    nodes: int
    seconds: float
    solver: str
    version: str
    trace: Trace = ()
    message: str = ""
    multipliers: Vector | None = None

    @property
    def gap(self) -> float:
        """objective - dual_bound; inf if either is missing."""
        return math.inf if self.objective is None else self.objective - self.dual_bound


@dataclass(frozen=True)
class Limits:
    """When to stop. A time limit T (wall seconds) is met within 1.1 T + 1 s by every solver.

    relative_gap is relative to |objective|; a solve is optimal when either gap is met. threads: 1 unless told
    otherwise, so that results are reproducible. node_limit: None for no limit.
    """

    time_limit: float = math.inf
    # As tight as the check of points (solvers.checks.TOLERANCE): beyond it a solver's word says nothing.
    relative_gap: float = 1e-6
    absolute_gap: float = 1e-6
    threads: int = 1
    node_limit: int | None = None

    def __post_init__(self) -> None:
        if not self.time_limit > 0:
            raise ValueError(f"time_limit must be positive seconds, not {self.time_limit}")
        if not (self.relative_gap >= 0 and self.absolute_gap >= 0):
            raise ValueError("gaps must be non-negative")
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, not {self.threads}")
        if self.node_limit is not None and self.node_limit < 1:
            raise ValueError(f"node_limit must be at least 1, not {self.node_limit}")
