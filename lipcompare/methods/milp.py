"""LipMIP: exact local Lipschitz constants by mixed-integer programming (Jordan and Dimakis 2020, arXiv 2003.01219)."""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import time
from collections.abc import Callable
from typing import ClassVar, final

import numpy as np
import torch

import solvers
from lipcompare.attack.search import SHORT, kink_patterns, search
from lipcompare.budget import Budget, Clock, Deadline, Kept
from lipcompare.encoding.builder import OutOfRange
from lipcompare.encoding.network import Encoding
from lipcompare.errors import SOLVER_EXTRAS, Contradiction, InvalidInput, UnsupportedOperation, install
from lipcompare.gates import by_node
from lipcompare.methods.base import HURRIED, REFINING, Method, as_array
from lipcompare.methods.linear import Linear, linear_bounds
from lipcompare.network.interval import Interval
from lipcompare.problem import Norm, Problem
from lipcompare.programs.entries import entry_intervals
from lipcompare.programs.preactivation import Refinement, refined_bounds
from lipcompare.programs.prepared import Prepared, encodable, encode_rows, prepare, prepared_from
from lipcompare.programs.tolerance import solver_error
from lipcompare.programs.witness import attain
from lipcompare.quadratic.bound import sdp_bound
from lipcompare.result import Attained, Bound, Status, Witness, Witnesses, closed
from lipcompare.rounding import DISPUTED, TIE, sum_above
from lipcompare.witness import as_noted, as_witnesses, make_witnesses
from solvers.checks import violation

STATUSES: dict[solvers.SolveStatus, Status] = {
    solvers.SolveStatus.OPTIMAL: Status.COMPLETE,
    solvers.SolveStatus.CUTOFF: Status.NUMERICAL,  # no program here is given one
    solvers.SolveStatus.TIME_LIMIT: Status.TIME_LIMIT,
    solvers.SolveStatus.TIME_LIMIT_NO_POINT: Status.TIME_LIMIT,
    solvers.SolveStatus.NODE_LIMIT: Status.NODE_LIMIT,
    solvers.SolveStatus.ITERATION_LIMIT: Status.NODE_LIMIT,
    solvers.SolveStatus.INTERRUPTED: Status.INTERRUPTED,
    solvers.SolveStatus.INFEASIBLE: Status.NUMERICAL,  # every program here has a feasible point
    solvers.SolveStatus.UNBOUNDED: Status.NUMERICAL,  # and every column is bounded
    solvers.SolveStatus.INFEASIBLE_OR_UNBOUNDED: Status.NUMERICAL,
    solvers.SolveStatus.NUMERICAL_TROUBLE: Status.NUMERICAL,
    solvers.SolveStatus.LICENCE_TOO_SMALL: Status.LICENCE_TOO_SMALL,
    solvers.SolveStatus.NO_LICENCE: Status.UNAVAILABLE,
    solvers.SolveStatus.NOT_INSTALLED: Status.UNAVAILABLE,
    solvers.SolveStatus.UNSUPPORTED: Status.UNSUPPORTED,
    solvers.SolveStatus.OUT_OF_MEMORY: Status.MEMORY_LIMIT,
    solvers.SolveStatus.SOLVER_ERROR: Status.NUMERICAL,
}
"""What a solver's status means for the method. A word is no bound: only a finite dual bound that agrees with bounds of
our own counts, whatever the status."""


def said(solution: solvers.Solution) -> str:
    """What a solver says of how it ended; of one that is not there and does not say why, how to get it."""
    extra = solution.solver.partition(":")[0]
    missing = solution.status is solvers.SolveStatus.NOT_INSTALLED and extra in SOLVER_EXTRAS and not solution.message
    return f"{install(extra)} brings {solution.solver}." if missing else solution.message


def without_integers(solver: str) -> str:
    """A sentence on a solver that has no integer variables."""
    having = [name for name in solvers.names() if (able := solvers.get(name)).capabilities.mip and able.is_available()]
    return (
        f"{solver} has no integer variables: the bounds are those from before the integer programs, for which there "
        f"are {', '.join(having)}."
    )


FATAL = (Status.LICENCE_TOO_SMALL, Status.UNAVAILABLE, Status.UNSUPPORTED, Status.INTERRUPTED)
"""Statuses after which trying the next row is pointless."""


_SEARCH = 0.7
"""Share of the time that is left for the attack; the check of what it found takes the rest."""
_HARD = 1.02
"""Ratio of a row's bounds above which its entries are worth a semidefinite program each."""


class RowStrategy(enum.Enum):
    """How the maximum over rows is taken."""

    PER_ROW = "per-row"  # a program for each row that can still be the largest
    MAXIMUM = "maximum"  # one program for the maximum over those rows
    EVERY = "every-row"  # a program for each row, to prove each row's own value


def get_solver(name: str) -> solvers.Solver:
    """The solver of that name.

    Raises:
        InvalidInput: no such solver is known here.
        UnsupportedOperation: it is known, but not on this machine.
    """
    try:
        return solvers.get(name)
    except solvers.NotHere as error:
        raise UnsupportedOperation(str(error)) from None
    except ValueError as error:
        raise InvalidInput(str(error)) from None


@final
@dataclasses.dataclass(frozen=True)
class Milp(Method):
    """Mixed-integer programs over activation patterns, their gradients and the norm, solved to optimality (LipMIP).

    Each example first gets lower bounds from a short attack and upper bounds from linear bound propagation and, with
    ``screen``, the quadratic-gate relaxation. Rows whose upper bound is under the best lower bound are not solved. The
    attack's point starts a program, which ends once its row cannot be the largest, and both sides are compared with
    what the solver says. That a program is infeasible or unbounded is not believed: each has a point and finite bounds.

    Solvers work with tolerances. A violated constraint or a fraction of a binary only makes their optimum larger, which
    leaves an upper bound valid (and no such point counts as a lower bound: every incumbent's pattern is given a point
    that attains it in exact arithmetic). A reduced cost of the wrong sign within the dual tolerance can make their
    bound too small, by at most the tolerance times the sum of the columns' and rows' ranges, and they cut off what is
    better than their best point by too little to matter to them; both is added to every upper bound, with what rounding
    in the program's coefficients may do. It limits the gap that can be reached on large networks, and with coefficients
    beyond :attr:`solvers.Capabilities.largest` nothing is taken from the solver.
    Cuts and presolve are trusted, after the checks above.

    Attributes:
        solver: a name that ``lipcompare solvers`` lists.
        tightening: pre-activation bounds that the programs' big-M constants come from.
        rows: one program per row, or one for all.
        screen: bound the rows by the quadratic-gate relaxation first, and leave out those that cannot be the largest.
        threads: CPU threads of the solver.
        seed: of the attack and of the solver.
    """

    name: ClassVar[str] = "milp"
    proves: ClassVar[str] = "exact"
    summary: ClassVar[str] = "mixed-integer programming, exact for piecewise linear networks (LipMIP)"
    reference: ClassVar[str] = "jordan2020lipmip"

    solver: str = "highs"
    tightening: Refinement = Refinement.SIGNS
    rows: RowStrategy = RowStrategy.PER_ROW
    screen: bool = True
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        self.at_least(1, "threads")
        get_solver(self.solver)

    def supports(self, problem: Problem) -> str | None:
        return encodable(problem)

    def run(self, problem: Problem, budget: Budget, known: Witnesses | None = None) -> Bound:
        clock = Clock(budget)
        linear = linear_bounds(problem.double("cpu"), clock, self.tightening.propagated, joint=False)
        return self.after(linear, problem, clock, known)

    def after(self, linear: Linear, problem: Problem, clock: Clock, known: Witnesses | None = None) -> Bound:
        """Go on from the linear bounds of the problem, in float64 on the CPU, to the end of the clock's time.

        ``known``: points to beat; without any, an attack looks for some.
        """
        double, budget = linear.problem, clock.budget
        lower, upper = np.zeros((problem.batch, problem.rows)), as_array(linear.upper).copy()
        searches: list[_Example] = []
        status, detail = Status.COMPLETE, ""
        for b in range(problem.batch):
            if b and not clock.running():
                status, detail = Status.TIME_LIMIT, "The time did not reach every example."
                break
            # The time that is left is shared by the examples to come.
            deadline = clock.elapsed + clock.left / (problem.batch - b)
            points = None if known is None else known.example(b)
            search_ = _Example(self, linear.part(b), points, budget, clock, deadline)
            searches.append(search_)

            def report(b: int = b, search_: _Example = search_) -> None:
                lower[b], upper[b] = search_.lower, search_.upper
                clock.record(float(lower.max()), float(upper.max()))

            search_.report = report
            clock.keep(functools.partial(search_.kept, b))
            search_.run()
            lower[b], upper[b] = search_.lower, search_.upper
            if search_.status is Status.INTERRUPTED:
                raise KeyboardInterrupt  # the solver turned it into a status
            if search_.status is not Status.COMPLETE:
                status, detail = search_.status, search_.detail
            if search_.status in FATAL:
                break
        if closed(lower, upper, budget.gap):
            status, detail = Status.EXACT, ""
        elif status is Status.COMPLETE and not np.isfinite(upper).all():
            status, detail = Status.NUMERICAL, str(OutOfRange())
        elif status is Status.COMPLETE:
            gaps = (upper.max(1) - lower.max(1)) / np.where(upper.max(1) > 0, upper.max(1), 1.0)
            detail = f"The solver's tolerances leave a relative gap of {float(gaps.max()):.2g}."
        # Examples that were not begun have the middle of their boxes.
        attained = [search_.found for search_ in searches]
        attained += [Attained(problem.rows) for _ in range(problem.batch - len(attained))]
        witnesses = as_witnesses(double, attained)
        return self.result(problem, clock, lower=lower, upper=upper, status=status, detail=detail, witnesses=witnesses)


class _Example:
    """The bounds of one example as they improve."""

    def __init__(
        self, method: Milp, linear: Linear, known: list[Witness] | None, budget: Budget, clock: Clock, deadline: float
    ) -> None:
        self.method, self.linear, self.budget, self.clock, self.deadline = method, linear, budget, clock, deadline
        self.problem, self.known = linear.problem, known
        self.solver = get_solver(method.solver)
        self.found = Attained(self.problem.rows)
        self.upper = as_array(linear.upper)[0].copy()
        self.status, self.detail = Status.COMPLETE, ""
        self.report: Callable[[], None] = lambda: None

    @property
    def left(self) -> float:
        return self.deadline - self.clock.elapsed

    @property
    def lower(self) -> np.ndarray:
        """(rows,)"""
        return self.found.lower

    def kept(self, example: int) -> Kept:
        """What is proved so far."""
        return Kept(example, self.upper[None], as_noted(self.problem, [self.found]))

    def run(self) -> None:
        network, box = self.problem.network, self.problem.box.interval
        refinement = self.method.tightening
        self._attack()
        self.report()
        if not self._open_rows():
            return
        hurried = self.linear.hurried or self.left <= self.linear.ahead
        if not hurried:
            found = self.linear.propagated(self.budget.memory, REFINING * self.left)
            hurried = found.hurried
        if hurried:  # the programs of such a network are larger than its propagation
            self.status, self.detail = Status.TIME_LIMIT, HURRIED
            return
        first = prepared = prepared_from(self.problem, found)
        if refinement.solves and self.left > 0:
            bounds = refined_bounds(
                network,
                box,
                refinement,
                self.solver,
                left=lambda: self.left / 2,
                memory=self.budget.memory,
                start=first.bounds,
            )
            ends = Deadline.after(self.left)
            prepared = prepare(self.problem, bounds, memory=self.budget.memory, deadline=ends)
            self.upper = np.minimum(self.upper, prepared.upper.numpy())
        if self.method.screen:
            self._screen(prepared)
        self.report()
        if self.method.rows is RowStrategy.MAXIMUM:
            if self._open_rows() and self._has_time():
                self._solve(prepared, self._open_rows())
            return
        todo = list(range(self.problem.rows))
        while todo := [row for row in self._open_rows() if row in todo]:
            # The largest upper bound first: it decides, and the others are then pruned by its value.
            row = max(todo, key=lambda r: self.upper[r])
            todo.remove(row)
            if not self._has_time():
                return
            self._solve(prepared, [row], share=1.0 / (1 + len(todo)))
            if self.status in FATAL:
                return

    def _has_time(self) -> bool:
        if self.left <= 0:
            self.status = Status.TIME_LIMIT
        return self.left > 0

    def _open_rows(self) -> list[int]:
        """Rows whose interval matters for the answer and is not closed to the requested gap."""
        target = self.lower if self.method.rows is RowStrategy.EVERY else self.lower.max()
        return np.flatnonzero(self.upper > target * (1 + self.budget.gap)).tolist()

    def _attack(self) -> None:
        if self.known is not None:
            self.found = Attained(self.problem.rows, self.known)
            return
        points = search(
            self.problem,
            SHORT,
            seed=self.method.seed,
            memory=self.budget.memory,
            deadline=Deadline.after(_SEARCH * self.left),
        )
        patterns = kink_patterns(self.problem, points, Deadline.after(self.left))
        witnesses = make_witnesses(self.problem, points, patterns)
        self.found = Attained(self.problem.rows, witnesses.example(0))

    def _screen(self, prepared: Prepared) -> None:
        """Upper bounds of the quadratic-gate relaxation; a row stops once it is known not to matter."""
        if self.left <= 0:
            return
        floor = prepared.upper.new_tensor([0.0 if self.method.rows is RowStrategy.EVERY else float(self.lower.max())])
        problem = self.problem
        bound = sdp_bound(
            problem.network,
            prepared.gates,
            problem.functionals,
            prepared.gradients,
            problem.norm,
            tolerance=1e-3,  # it decides which rows can be the largest, and each program then closes its own
            only_maximum=False,
            prune_below=floor,
            target=floor,
            memory=self.budget.memory,
            deadline=self.clock.started + self.clock.elapsed + self.left / 4,
        )
        self.upper = np.minimum(self.upper, bound.upper[0].numpy())

    def _entries(self, prepared: Prepared, rows: list[int]) -> Interval | None:
        """Tightened intervals of the input gradient, for a row that is not almost closed."""
        hard = self.upper[rows].max() > self.lower.max() * _HARD
        if not self.method.screen or len(rows) > 1 or not hard:
            return None
        deadline = time.perf_counter() + self.left / 10
        return entry_intervals(prepared, rows[0], memory=self.budget.memory, deadline=deadline)

    def _solve(self, prepared: Prepared, rows: list[int], share: float = 1.0) -> None:
        """Solves the program of some rows' maximum and takes what it proves."""
        every = self.method.rows is RowStrategy.EVERY
        best = float(self.lower[rows].max() if every else self.lower.max())
        gap = self.budget.gap
        leader = max(rows, key=lambda r: self.lower[r])
        least = best if self.problem.norm is Norm.ONE else 0.0
        try:
            encoding = encode_rows(prepared, rows, entries=self._entries(prepared, rows), least=least)
        except OutOfRange as trouble:
            self.status, self.detail = Status.NUMERICAL, str(trouble)
            return
        start = self._start(encoding, prepared, rows.index(leader), self.found.witnesses.get(leader))
        before, known = self.upper.copy(), float(self.lower[rows].max())
        # What the solver's bound on the program, and the program on the norm, can be too small by.
        error = float(sum_above(solver_error(self.solver, encoding.program), encoding.error))
        decided = False

        def watch(_seconds: float, _objective: float, dual: float) -> bool:
            """Takes up the bound so far, and ends the solve once these rows cannot be the largest."""
            nonlocal decided
            if not math.isfinite(dual) or -dual + error < known:
                return False  # not to be believed; what comes of it is seen at the end
            proved = max(float(sum_above(max(-dual, 0.0), error)), best)
            self.upper[rows] = np.minimum(before[rows], proved)
            self.report()
            decided = proved <= best * (1 + gap / 4)
            return decided

        solution = self.solver.solve(
            encoding.program,
            solvers.Limits(
                time_limit=max(self.left * share, 0.01),
                relative_gap=gap / 4,
                absolute_gap=1e-9,  # next to what tolerances cost: only constants of that size are met by it
                threads=self.method.threads,
            ),
            start=start,
            on_progress=watch,
        )
        self.upper = before
        status = Status.COMPLETE if decided else STATUSES[solution.status]
        if status is not Status.COMPLETE:
            self.status, self.detail = status, said(solution)
            if status is Status.UNSUPPORTED and not self.solver.capabilities.mip:
                self.detail = without_integers(self.solver.name)
        if solution.status is solvers.SolveStatus.NUMERICAL_TROUBLE or not math.isfinite(solution.dual_bound):
            # Every program here has a point and bounded columns: "infeasible" and "unbounded" are trouble too.
            return
        # Entries that cannot exceed ``least`` are not in the program for p = 1, and may be all that these rows have.
        proved = max(float(sum_above(max(-solution.dual_bound, 0.0), error)), least)
        value = None if solution.objective is None else -solution.objective
        cross_check(self.method.solver, value, proved, known, float(before[rows].max()))
        if proved < known - encoding.error:
            self.status, self.detail = Status.NUMERICAL, "The solver's bound is below what a point attains."
            return
        if value is not None and solution.x is not None and value > known * (1 + TIE):
            self._take(encoding, prepared, rows, solution.x)
        self.upper[rows] = np.minimum(before[rows], max(proved, float(self.lower[rows].max())))
        self.report()

    def _start(self, encoding: Encoding, prepared: Prepared, row: int, attained: Witness | None) -> np.ndarray | None:
        """The attack's point as a point of the program, which must contain it; None where it found nothing."""
        if attained is None:
            return None
        pattern = None
        if attained.slopes is not None:
            slopes = by_node(self.problem.network, torch.from_numpy(attained.slopes))
            pattern = {k: (v == prepared.gates.slopes[k].upper[0]).numpy() for k, v in slopes.items()}
        start = encoding.start(attained.point, row, pattern)
        fault = violation(encoding.program, start)
        value = -encoding.program.objective(start)
        exact = self.problem.norm is Norm.INF  # entries under the floor are not in a program for p = 1
        allowed = DISPUTED * (1 + attained.value) + encoding.error
        if fault is not None or (exact and abs(value - attained.value) > allowed):
            raise Contradiction(
                f"{self.method.name}: the program excludes a point with gradient norm {attained.value!r} that the "
                f"attack found ({fault or f'it has {value!r} there'}). This is a bug: please report it with the model."
            )
        return start

    def _take(self, encoding: Encoding, prepared: Prepared, rows: list[int], x: np.ndarray) -> None:
        """Turns a solver's point into a witness, if it can be verified and is an improvement."""
        row = rows[int(np.argmax(x[encoding.rows]))] if len(encoding.rows) else rows[0]
        attained = attain(self.problem, prepared.gates, row, encoding.point(x), encoding.pattern(x))
        if attained is not None:
            self.found.note(attained)


def cross_check(solver: str, value: float | None, proved: float, lower: float, upper: float) -> None:
    """Compares what a solver claims, its best ``value`` and the upper bound it ``proved``, with bounds of our own.

    Raises:
        Contradiction: the solver's claims and ours exclude each other.
    """
    if math.isfinite(proved) and proved < lower * (1 - DISPUTED) - DISPUTED:
        raise Contradiction(
            f"{solver} says the constant is at most {proved!r}, but the attack found a point with {lower!r}. One of "
            "the two is wrong: please report it with the model."
        )
    if value is not None and value > upper * (1 + DISPUTED) + DISPUTED:
        raise Contradiction(
            f"{solver} says a point attains {value!r}, but bound propagation proves at most {upper!r}. One of the two "
            "is wrong: please report it with the model."
        )
