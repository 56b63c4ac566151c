"""The same questions to every back end, and the same answers; what it cannot do, it refuses."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import pytest
import scipy.optimize

import solvers
from solvers import Capabilities, Limits, MixedIntegerProgram, Program, Solution, Solver, SolveStatus
from solvers.checks import violation
from solvers.program import one_sided

_INF = np.inf
_EXACT = Limits(relative_gap=1e-9, absolute_gap=1e-9, time_limit=30)


def _program(
    cost: Any, rows: Any, row_lower: Any, row_upper: Any, lower: Any, upper: Any, integrality: Any
) -> MixedIntegerProgram:
    return MixedIntegerProgram(
        cost, np.array(rows, float), row_lower=row_lower, row_upper=row_upper, lower=lower, upper=upper,
        integrality=integrality,
    )  # fmt: skip


def knapsack(variables: int, rows: int, seed: int = 0) -> MixedIntegerProgram:
    """A multi-dimensional knapsack, hard for its size: (100, 40, 3) takes HiGHS and CBC several seconds."""
    random = np.random.default_rng(seed)
    A = random.integers(1, 100, (rows, variables)).astype(float)
    cost = -random.integers(1, 100, variables).astype(float)
    zeros, ones = np.zeros(variables), np.ones(variables)
    return _program(cost, A, np.full(rows, -_INF), A.sum(1) // 2, zeros, ones, ones)


def hard() -> MixedIntegerProgram:
    """No back end here closes it in ten seconds on one core."""
    return knapsack(160, 60, 3)


_HARD_VALUES = (-8000.0, -3000.0)
"""The minimum of hard() lies between these."""

_INFEASIBLE = {
    "mip": _program([1.0, 0], [[2.0, 2.0]], [1], [1], [0, 0], [5, 5], [1, 1]),
    "mip, unbounded direction": _program(
        [-1.0, 0, 0], [[1, 0, 0], [0, 2, 2]], [0, 1], [_INF, 1], [0, 0, 0], [_INF, 5, 5], [0, 1, 1]
    ),
    "lp": _program([1.0], [[1.0]], [2], [3], [0], [1], [0]),
    "lp, unbounded direction": _program(
        [-1.0, 0, 0], [[1, 0, 0], [0, 2, 2]], [0, 1], [_INF, 1], [0, 1, 0], [_INF, 5, 5], [0, 0, 0]
    ),
}
_UNBOUNDED = {
    "mip": _program([-1.0, 1], [[1.0, -1.0]], [0], [_INF], [0, 0], [_INF, 1], [0, 1]),
    "lp": _program([-1.0], [[1.0]], [0], [_INF], [0], [_INF], [0]),
}
_CONIC_INFEASIBLE = solvers.ConicProgram([1.0], [[1.0], [-1.0]], [-1.0, -1.0], solvers.Cones(nonneg=2))
_CONIC_UNBOUNDED = solvers.ConicProgram([1.0], [[1.0]], [1.0], solvers.Cones(nonneg=1))


def random_program(seed: int, *, integers: bool) -> MixedIntegerProgram:
    """Feasible, with bounded variables, all kinds of rows (equal, ranged, one-sided, free), and an offset."""
    random = np.random.default_rng(seed)
    n, m = int(random.integers(1, 8)), int(random.integers(0, 7))
    whole = (random.random(n) < 0.6) & integers
    A = np.where(random.random((m, n)) < 0.7, random.integers(-9, 10, (m, n)), 0) * random.choice([1.0, 0.37])
    lower = -random.integers(0, 4, n).astype(float)
    upper = lower + random.integers(0, 6, n)
    point = lower + (upper - lower) * random.random(n)
    point = np.where(whole, np.round(point), point)
    kind, level, width = random.integers(0, 5, m), A @ point, random.random(m) * 8
    row_lower = np.where(np.isin(kind, (0, 4)), -_INF, np.where(kind == 1, level, level - width))
    row_upper = np.where(np.isin(kind, (3, 4)), _INF, np.where(kind == 1, level, level + width))
    cost = random.integers(-5, 6, n) + random.choice([0.0, 0.25])
    offset = float(random.integers(-3, 4))
    return MixedIntegerProgram(
        cost, A, row_lower=row_lower, row_upper=row_upper, lower=lower, upper=upper, integrality=whole, offset=offset
    )


def semidefinite_program(seed: int) -> tuple[solvers.ConicProgram, float]:
    """min <C, X> over psd X of trace 1, whose minimum is the least eigenvalue of C; with a second-order ball beside:
    min d @ z over ||z|| <= r, whose minimum is -r ||d||. Returned with the minimum of the sum."""
    random = np.random.default_rng(seed)
    k, q = int(random.integers(1, 6)), int(random.integers(1, 5))
    C = random.normal(size=(k, k))
    C = C + C.T
    d, radius = random.normal(size=q), float(random.uniform(0.5, 2.0))
    size = k * (k + 1) // 2
    A = np.zeros((1 + 1 + q + size, size + q))
    A[0, :size] = solvers.svec(np.eye(k))
    A[2 : 2 + q, size:] = -np.eye(q)
    A[2 + q :, :size] = -np.eye(size)
    b = np.concatenate([[1.0, radius], np.zeros(q + size)])
    cones = solvers.Cones(zero=1, second_order=(1 + q,), psd=(k,))
    made = solvers.ConicProgram(np.concatenate([solvers.svec(C), d]), A, b, cones, offset=0.5)
    return made, float(np.linalg.eigvalsh(C)[0] - radius * np.linalg.norm(d) + 0.5)


def reference(program: MixedIntegerProgram) -> float:
    """The minimum by scipy's own route: one LP per assignment of the integers if they are few, else its MILP."""
    columns = zip(program.lower, program.upper, program.integrality, strict=True)
    ranges = [range(int(low), int(high) + 1) for low, high, whole in columns if whole]
    if np.prod([len(r) for r in ranges], dtype=float) > 40:
        rows = scipy.optimize.LinearConstraint(program.A, program.row_lower, program.row_upper)
        solved = scipy.optimize.milp(
            program.cost,
            integrality=program.integrality,
            bounds=scipy.optimize.Bounds(program.lower, program.upper),
            constraints=rows if program.num_rows else (),
            options={"mip_rel_gap": 0.0, "presolve": False},
        )
        assert solved.status == 0
        return float(solved.fun) + program.offset
    sided, best, fixed = one_sided(program), np.inf, np.flatnonzero(program.integrality)
    for values in itertools.product(*ranges):
        lower, upper = program.lower.copy(), program.upper.copy()
        lower[fixed] = upper[fixed] = values
        solved = scipy.optimize.linprog(
            program.cost, A_eq=sided.A_eq, b_eq=sided.b_eq, A_ub=sided.A_ub, b_ub=sided.b_ub,
            bounds=np.column_stack([lower, upper]), method="highs-ds",
        )  # fmt: skip
        best = min(best, solved.fun if solved.status == 0 else np.inf)
    return float(best) + program.offset


class SolverConformance:
    """Tests of one solver; a subclass names it. What it is asked follows from its capabilities.

    Attributes:
        solver: its name.
        examples: random programs of each kind.
    """

    solver: ClassVar[str]
    examples: ClassVar[int] = 6

    def made(self, needs: str = "") -> Solver:
        """The solver; skips where it is not installed or not capable of what a test is about."""
        solver = solvers.get(self.solver)
        if not solver.is_available():
            pytest.skip(f"{self.solver} is not installed here")
        if needs and not getattr(solver.capabilities, needs):
            pytest.skip(f"{self.solver} does not say that it can: {needs}")
        return solver

    def proves(self, solution: Solution, program: Program, value: float) -> None:
        """The minimum ``value`` is proved, at a feasible point."""
        assert solution.status is SolveStatus.OPTIMAL, solution
        assert solution.x is not None
        assert solution.objective is not None
        assert violation(program, solution.x) is None
        assert solution.objective == pytest.approx(program.objective(solution.x), abs=0)
        tolerance = 1e-6 * (1 + abs(value))
        assert abs(solution.objective - value) <= tolerance
        assert value - 2 * tolerance <= solution.dual_bound <= solution.objective

    def traced(self, solution: Solution) -> None:
        """The trace only improves, and ends at the solution."""
        seconds, objectives, bounds = (np.array(column) for column in zip(*solution.trace, strict=True))
        assert (np.diff(seconds) >= 0).all()
        assert seconds[-1] <= solution.seconds
        assert (objectives[:-1] >= objectives[1:]).all()
        assert (bounds[1:] >= bounds[:-1]).all()
        assert (bounds <= objectives).all()
        assert bounds[-1] == solution.dual_bound
        assert objectives[-1] == (np.inf if solution.objective is None else solution.objective)

    def test_it_says_what_it_is(self) -> None:
        solver = self.made()
        assert solver.name == self.solver
        assert solver.version()
        assert solver.licence()
        can = solver.capabilities
        assert isinstance(can, Capabilities)
        assert can.lp or can.mip or can.conic
        assert 0 < can.dual_tolerance < 1e-3 and 0 <= can.pruning < 1e-3

    def test_what_it_cannot_do_it_refuses(self) -> None:
        solver = self.made()
        kinds: dict[str, Program] = {"mip": knapsack(3, 2), "lp": knapsack(3, 2).relaxed(), "conic": _CONIC_UNBOUNDED}
        for kind, program in kinds.items():
            if not getattr(solver.capabilities, kind):
                solution = solver.solve(program)
                assert solution.status is SolveStatus.UNSUPPORTED
                assert solution.dual_bound == -np.inf
                assert solution.message

    def test_random_milps(self) -> None:
        solver = self.made("mip")
        for seed in range(self.examples):
            program = random_program(seed, integers=True)
            self.proves(solver.solve(program, _EXACT), program, reference(program))

    def test_random_lps(self) -> None:
        """With multipliers, where it gives any, that bound the minimum by themselves."""
        solver = self.made("lp")
        for seed in range(self.examples):
            program = random_program(seed, integers=False)
            value, solution = reference(program), solver.solve(program, _EXACT)
            self.proves(solution, program, value)
            if solution.multipliers is not None:
                assert solution.multipliers.shape == (program.num_rows,)
                below = solvers.checks.lp_bound(program, solution.multipliers)
                assert value - 1e-4 * (1 + abs(value)) <= below <= value + 1e-9 * (1 + abs(value))

    def test_random_sdps(self) -> None:
        solver = self.made("conic")
        for seed in range(self.examples):
            program, value = semidefinite_program(seed)
            self.proves(solver.solve(program, _EXACT), program, value)

    @pytest.mark.parametrize("kind", sorted(_INFEASIBLE))
    def test_infeasible(self, kind: str) -> None:
        program = _INFEASIBLE[kind]
        solution = self.made("mip" if program.is_mip else "lp").solve(program)
        assert solution.status is SolveStatus.INFEASIBLE
        assert solution.x is None
        assert solution.objective is None
        assert solution.dual_bound == np.inf

    @pytest.mark.parametrize("kind", sorted(_UNBOUNDED))
    def test_unbounded(self, kind: str) -> None:
        program = _UNBOUNDED[kind]
        solution = self.made("mip" if program.is_mip else "lp").solve(program)
        assert solution.status is SolveStatus.UNBOUNDED
        assert solution.x is None
        assert solution.dual_bound == -np.inf

    def test_conic_infeasible_and_unbounded(self) -> None:
        solver = self.made("conic")
        assert solver.solve(_CONIC_INFEASIBLE).status is SolveStatus.INFEASIBLE
        assert solver.solve(_CONIC_UNBOUNDED).status is SolveStatus.UNBOUNDED

    def test_time_limit(self) -> None:
        solver, limit = self.made("mip"), 0.7
        began = time.monotonic()
        solution = solver.solve(hard(), Limits(time_limit=limit))
        assert time.monotonic() - began <= 1.1 * limit + 1
        assert solution.status in (SolveStatus.TIME_LIMIT, SolveStatus.TIME_LIMIT_NO_POINT)
        assert (solution.x is None) == (solution.status is SolveStatus.TIME_LIMIT_NO_POINT)
        low, high = _HARD_VALUES
        if solver.capabilities.dual_bound:
            assert low <= solution.dual_bound <= high
            self.traced(solution)
        else:
            assert solution.dual_bound == -np.inf
        if solution.objective is not None:
            assert solution.dual_bound <= solution.objective

    @pytest.mark.parametrize("limit", [0.05, 0.15])
    def test_bound_at_time_limit_holds(self, limit: float) -> None:
        solution = self.made("dual_bound").solve(knapsack(60, 20), Limits(time_limit=limit))
        assert solution.dual_bound <= -2219 + 1e-4
        assert solution.objective is None or solution.objective >= -2219 - 1e-4

    def test_cutoff(self) -> None:
        program, minimum = knapsack(25, 5), -988.0
        solver = self.made("mip")
        self.proves(solver.solve(program, _EXACT, cutoff=minimum + 0.5), program, minimum)
        for cutoff in (minimum - 0.5, minimum - 20, minimum - 1000):
            solution = solver.solve(program, _EXACT, cutoff=cutoff)
            assert solution.status is SolveStatus.CUTOFF
            assert solution.x is None
            assert solution.objective is None
            # Bounds from a solve with a cutoff prove nothing beyond it.
            assert solution.dual_bound == pytest.approx(cutoff, abs=1e-6)

    def test_cutoff_on_infeasible_program(self) -> None:
        solution = self.made("mip").solve(_INFEASIBLE["mip"], cutoff=3.0)
        assert solution.status is SolveStatus.CUTOFF
        assert solution.dual_bound == 3.0

    def test_lp_cutoff(self) -> None:
        solver, program = self.made("lp"), knapsack(10, 4).relaxed()
        minimum = reference(program)
        solution = solver.solve(program, cutoff=minimum - 5)
        assert solution.status is SolveStatus.CUTOFF
        assert solution.x is None
        assert solution.dual_bound == pytest.approx(minimum - 5, abs=1e-6)
        assert solver.solve(program, cutoff=minimum + 5).objective == pytest.approx(minimum, abs=1e-4)

    def test_cutoff_caps_the_bound_at_time_limit(self) -> None:
        low, _ = _HARD_VALUES
        solution = self.made("dual_bound").solve(hard(), Limits(time_limit=0.5), cutoff=low - 100)
        assert solution.x is None
        assert solution.dual_bound <= low - 100
        assert solution.status in (SolveStatus.CUTOFF, SolveStatus.TIME_LIMIT_NO_POINT)

    def test_start(self) -> None:
        solver, program = self.made("mip"), knapsack(25, 5)
        best = solver.solve(program, _EXACT)
        assert best.objective == pytest.approx(-988.0)
        assert best.x is not None
        solution = solver.solve(program, _EXACT, start=best.x)
        self.proves(solution, program, -988.0)
        assert solution.trace[0][1] == pytest.approx(-988.0)
        partial = np.where(np.arange(25) < 5, best.x, np.nan)
        self.proves(solver.solve(program, _EXACT, start=partial), program, -988.0)

    def test_infeasible_start_does_no_harm(self) -> None:
        program = knapsack(25, 5)
        self.proves(self.made("mip").solve(program, _EXACT, start=np.ones(25)), program, -988.0)

    def test_trace(self) -> None:
        program = knapsack(25, 5)
        solver = self.made("lp")
        solution = solver.solve(program if solver.capabilities.mip else program.relaxed())
        self.traced(solution)
        assert len(solution.trace) > 1 or not solver.capabilities.callbacks

    def test_progress_can_stop(self) -> None:
        seen: list[tuple[float, float, float]] = []

        def stop(seconds: float, objective: float, bound: float) -> bool:
            seen.append((seconds, objective, bound))
            return bool(np.isfinite(objective))

        solution = self.made("callbacks").solve(hard(), on_progress=stop)
        assert solution.status is SolveStatus.INTERRUPTED
        assert solution.x is not None
        assert violation(hard(), solution.x) is None
        assert seen
        assert all(seconds <= solution.seconds for seconds, _, _ in seen)

    def test_error_in_progress_is_raised(self) -> None:
        def fail(*_now: float) -> bool:
            raise ZeroDivisionError("from the callback")

        with pytest.raises(ZeroDivisionError, match="from the callback"):
            self.made("callbacks").solve(hard(), on_progress=fail)

    def test_keyboard_interrupt(self) -> None:
        solver = self.made("mip")
        timer = threading.Timer(0.6, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        began = time.monotonic()
        # The time limit only frees the machine from the solvers that cannot be stopped.
        solution = solver.solve(hard(), Limits(time_limit=4))
        assert time.monotonic() - began < 3
        timer.join()
        assert solution.status is SolveStatus.INTERRUPTED
        assert solution.dual_bound <= _HARD_VALUES[1]
        assert solution.x is None or violation(hard(), solution.x) is None

    def test_overlapping_solves_leave_ctrl_c_alone(self) -> None:
        """Solves that start before others end: a handler that each saves and restores by itself would stay behind."""
        solver = self.made("mip")
        limits = [Limits(time_limit=seconds) for seconds in (0.3, 0.6, 0.9)]
        with ThreadPoolExecutor(3) as pool:
            solved = list(pool.map(lambda limit: solver.solve(hard(), limit), limits))
        ended = (SolveStatus.TIME_LIMIT, SolveStatus.TIME_LIMIT_NO_POINT)
        assert all(solution.status in ended for solution in solved)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    def test_concurrent_solves(self) -> None:
        solver, programs = self.made("mip"), [knapsack(20, 5, seed) for seed in range(6)]
        with ThreadPoolExecutor(3) as pool:
            limits = [Limits(relative_gap=1e-9, absolute_gap=1e-9, threads=1 + k % 2) for k in range(6)]
            together = list(pool.map(solver.solve, programs, limits))
        for program, solution in zip(programs, together, strict=True):
            self.proves(solution, program, reference(program))

    @pytest.mark.parametrize("scale", [1e-6, 1e-8])
    def test_small_objectives(self, scale: float) -> None:
        """What is better than the best point by less than solvers care for may be a good part of a small objective:
        they may miss it, by no more than they say."""
        solver = self.made("mip")
        for seed in (0, 4):
            random = np.random.default_rng(seed)
            weight = random.integers(10, 40, 12).astype(float)
            cost = -(weight + random.random(12)) * scale
            zeros, ones = np.zeros(12), np.ones(12)
            program = _program(cost, weight[None], [-_INF], [weight.sum() // 2], zeros, ones, ones)
            points = np.array(list(itertools.product((0.0, 1.0), repeat=12)))
            truth = (points @ cost)[points @ weight <= weight.sum() // 2].min()
            solution = solver.solve(program, Limits(time_limit=10.0, relative_gap=1e-9, absolute_gap=1e-12))
            missed = solver.capabilities.dual_tolerance * 12 + solver.capabilities.pruning
            assert solution.dual_bound <= truth + missed

    def test_node_limit(self) -> None:
        solution = self.made("dual_bound").solve(knapsack(60, 20), Limits(node_limit=3))
        assert solution.status is SolveStatus.NODE_LIMIT
        assert solution.dual_bound <= -2219 + 1e-4
