"""Every back end, the same questions, the same answers."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

import solvers
from solvers import Limits, SolveStatus
from solvers.checks import violation
from solvers.program import one_sided

INF = np.inf


def program(cost, rows, row_lower, row_upper, lower, upper, integrality):
    return solvers.MixedIntegerProgram(cost, np.array(rows, float), row_lower, row_upper, lower, upper, integrality)


def knapsack(variables: int, rows: int, seed: int = 0) -> solvers.MixedIntegerProgram:
    """A multi-dimensional knapsack, hard for its size: (100, 40, 3) takes HiGHS and CBC several seconds."""
    random = np.random.default_rng(seed)
    A = random.integers(1, 100, (rows, variables)).astype(float)
    cost = -random.integers(1, 100, variables).astype(float)
    return program(
        cost,
        A,
        np.full(rows, -INF),
        A.sum(1) // 2,
        np.zeros(variables),
        np.ones(variables),
        np.ones(variables),
    )


def hard() -> solvers.MixedIntegerProgram:
    """No back end here closes it in ten seconds on one core."""
    return knapsack(160, 60, 3)


HARD_VALUES = (-8000.0, -3000.0)
"""The minimum of hard() lies between these."""

INFEASIBLE = {
    "mip": program([1.0, 0], [[2.0, 2.0]], [1], [1], [0, 0], [5, 5], [1, 1]),
    "mip, unbounded direction": program(
        [-1.0, 0, 0], [[1, 0, 0], [0, 2, 2]], [0, 1], [INF, 1], [0, 0, 0], [INF, 5, 5], [0, 1, 1]
    ),
    "lp": program([1.0], [[1.0]], [2], [3], [0], [1], [0]),
    "lp, unbounded direction": program(
        [-1.0, 0, 0], [[1, 0, 0], [0, 2, 2]], [0, 1], [INF, 1], [0, 1, 0], [INF, 5, 5], [0, 0, 0]
    ),
}
UNBOUNDED = {
    "mip": program([-1.0, 1], [[1.0, -1.0]], [0], [INF], [0, 0], [INF, 1], [0, 1]),
    "lp": program([-1.0], [[1.0]], [0], [INF], [0], [INF], [0]),
}
CONIC_INFEASIBLE = solvers.ConicProgram([1.0], [[1.0], [-1.0]], [-1.0, -1.0], solvers.Cones(nonneg=2))
CONIC_UNBOUNDED = solvers.ConicProgram([1.0], [[1.0]], [1.0], solvers.Cones(nonneg=1))


@st.composite
def bounded_programs(draw, integers: bool) -> solvers.MixedIntegerProgram:
    """Feasible programs with bounded variables, all kinds of rows (equal, ranged, one-sided, free), and an
    offset."""
    n, m = draw(st.integers(1, 7)), draw(st.integers(0, 6))
    random = np.random.default_rng(draw(st.integers(0, 10**9)))
    whole = (random.random(n) < 0.6) & integers
    A = np.where(random.random((m, n)) < 0.7, random.integers(-9, 10, (m, n)), 0) * random.choice([1.0, 0.37])
    lower = -random.integers(0, 4, n).astype(float)
    upper = lower + random.integers(0, 6, n)
    point = lower + (upper - lower) * random.random(n)
    point = np.where(whole, np.round(point), point)
    kind, level, width = random.integers(0, 5, m), A @ point, random.random(m) * 8
    row_lower = np.where(np.isin(kind, (0, 4)), -INF, np.where(kind == 1, level, level - width))
    row_upper = np.where(np.isin(kind, (3, 4)), INF, np.where(kind == 1, level, level + width))
    cost = random.integers(-5, 6, n) + random.choice([0.0, 0.25])
    return solvers.MixedIntegerProgram(
        cost, A, row_lower, row_upper, lower, upper, whole, offset=float(random.integers(-3, 4))
    )


@st.composite
def semidefinite_programs(draw) -> tuple[solvers.ConicProgram, float]:
    """min <C, X> over psd X of trace 1, whose minimum is the least eigenvalue of C; with a second-order ball
    beside: min d @ z over ||z|| <= r, whose minimum is -r ||d||. Returned with the minimum of the sum."""
    random = np.random.default_rng(draw(st.integers(0, 10**9)))
    k, q = draw(st.integers(1, 5)), draw(st.integers(1, 4))
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
    program = solvers.ConicProgram(np.concatenate([solvers.svec(C), d]), A, b, cones, offset=0.5)
    return program, float(np.linalg.eigvalsh(C)[0] - radius * np.linalg.norm(d) + 0.5)


EXACT = Limits(relative_gap=1e-9, absolute_gap=1e-9, time_limit=30)


def _named(*names: str) -> list[object]:
    gurobi = pytest.mark.skipif(importlib.util.find_spec("gurobipy") is None, reason="gurobipy is not importable")
    return [pytest.param(name, marks=gurobi if "gurobi" in name.lower() else ()) for name in names]


MIP = _named("highs", "gurobi", "pulp", "pulp:HiGHS", "cvxpy:HIGHS")
BOUNDING = _named("highs", "gurobi", "pulp")
STREAMING = _named("highs", "gurobi")
LP = _named("highs", "gurobi", "pulp", "pulp:HiGHS", "cvxpy:HIGHS", "cvxpy:CLARABEL", "cvxpy:SCS")
CONIC = _named("cvxpy:CLARABEL", "cvxpy:SCS")


def _reference(program: solvers.MixedIntegerProgram) -> float:
    """The minimum by scipy's own route: one LP per assignment of the integers if they are few, else its
    MILP."""
    constraints = LinearConstraint(program.A, program.row_lower, program.row_upper) if program.num_rows else ()
    ranges = [range(int(low), int(high) + 1) for low, high, whole in
              zip(program.lower, program.upper, program.integrality, strict=True) if whole]  # fmt: skip
    if np.prod([len(r) for r in ranges], dtype=float) > 40:
        bounds = Bounds(program.lower, program.upper)
        options = {"mip_rel_gap": 0.0, "presolve": False}
        found = milp(
            program.cost,
            integrality=program.integrality,
            bounds=bounds,
            constraints=constraints,
            options=options,
        )
        assert found.status == 0
        return float(found.fun) + program.offset
    rows, best, fixed = one_sided(program), np.inf, np.flatnonzero(program.integrality)
    for values in np.stack(np.meshgrid(*ranges, indexing="ij"), -1).reshape(-1, len(ranges)) if ranges else [[]]:
        lower, upper = program.lower.copy(), program.upper.copy()
        lower[fixed] = upper[fixed] = values
        found = linprog(
            program.cost, A_eq=rows.A_eq, b_eq=rows.b_eq, A_ub=rows.A_ub, b_ub=rows.b_ub,
            bounds=np.column_stack([lower, upper]), method="highs-ds",
        )  # fmt: skip
        best = min(best, found.fun if found.status == 0 else np.inf)
    return float(best) + program.offset


def _assert_proves(solution: solvers.Solution, program: solvers.Program, value: float) -> None:
    assert solution.status is SolveStatus.OPTIMAL, solution
    assert violation(program, solution.x) is None
    assert solution.objective == pytest.approx(program.objective(solution.x), abs=0)
    tolerance = 1e-6 * (1 + abs(value))
    assert abs(solution.objective - value) <= tolerance
    assert value - 2 * tolerance <= solution.dual_bound <= solution.objective


def _assert_trace(solution: solvers.Solution) -> None:
    seconds, objectives, bounds = (np.array(column) for column in zip(*solution.trace, strict=True))
    assert (np.diff(seconds) >= 0).all() and seconds[-1] <= solution.seconds
    assert (objectives[:-1] >= objectives[1:]).all() and (bounds[1:] >= bounds[:-1]).all()
    assert (bounds <= objectives).all()
    assert bounds[-1] == solution.dual_bound
    assert objectives[-1] == (np.inf if solution.objective is None else solution.objective)


@pytest.mark.parametrize("name", MIP)
@settings(deadline=None, max_examples=12, derandomize=True)
@given(program=bounded_programs(integers=True))
def test_random_milp(name, program):
    _assert_proves(solvers.get(name).solve(program, EXACT), program, _reference(program))


@pytest.mark.parametrize("name", LP)
@settings(deadline=None, max_examples=12, derandomize=True)
@given(program=bounded_programs(integers=False))
def test_random_lp(name, program):
    _assert_proves(solvers.get(name).solve(program, EXACT), program, _reference(program))


@pytest.mark.parametrize("name", CONIC)
@settings(deadline=None, max_examples=8, derandomize=True)
@given(drawn=semidefinite_programs())
def test_random_sdp(name, drawn):
    program, value = drawn
    _assert_proves(solvers.get(name).solve(program, EXACT), program, value)


@pytest.mark.parametrize("kind", INFEASIBLE)
@pytest.mark.parametrize("name", LP)
def test_infeasible(name, kind):
    program = INFEASIBLE[kind]
    solver = solvers.get(name)
    solution = solver.solve(program)
    if program.is_mip and not solver.capabilities.mip:
        assert solution.status is SolveStatus.UNSUPPORTED and solution.dual_bound == -np.inf
    else:
        assert solution.status is SolveStatus.INFEASIBLE
        assert solution.x is None and solution.objective is None and solution.dual_bound == np.inf


@pytest.mark.parametrize("kind", UNBOUNDED)
@pytest.mark.parametrize("name", LP)
def test_unbounded(name, kind):
    program = UNBOUNDED[kind]
    solver = solvers.get(name)
    solution = solver.solve(program)
    if program.is_mip and not solver.capabilities.mip:
        assert solution.status is SolveStatus.UNSUPPORTED
    else:
        assert solution.status is SolveStatus.UNBOUNDED
    assert solution.x is None and solution.dual_bound == -np.inf


@pytest.mark.parametrize("name", CONIC)
def test_conic_infeasible_and_unbounded(name):
    assert solvers.get(name).solve(CONIC_INFEASIBLE).status is SolveStatus.INFEASIBLE
    assert solvers.get(name).solve(CONIC_UNBOUNDED).status is SolveStatus.UNBOUNDED


@pytest.mark.parametrize("name", MIP)
def test_time_limit(name):
    solver, limit = solvers.get(name), 0.7
    began = time.monotonic()
    solution = solver.solve(hard(), Limits(time_limit=limit))
    assert time.monotonic() - began <= 1.1 * limit + 1
    assert solution.status in (SolveStatus.TIME_LIMIT, SolveStatus.TIME_LIMIT_NO_POINT)
    assert (solution.x is None) == (solution.status is SolveStatus.TIME_LIMIT_NO_POINT)
    low, high = HARD_VALUES
    if solver.capabilities.dual_bound:
        assert low <= solution.dual_bound <= high
        _assert_trace(solution)
    else:
        assert solution.dual_bound == -np.inf
    if solution.objective is not None:
        assert solution.dual_bound <= solution.objective


@pytest.mark.parametrize("name", BOUNDING)
@pytest.mark.parametrize("limit", [0.05, 0.15])
def test_bound_at_time_limit_holds(name, limit):
    program = knapsack(60, 20)
    solution = solvers.get(name).solve(program, Limits(time_limit=limit))
    assert solution.dual_bound <= -2219 + 1e-4
    assert solution.objective is None or solution.objective >= -2219 - 1e-4


@pytest.mark.parametrize("name", MIP)
def test_cutoff(name):
    program, minimum = knapsack(25, 5), -988.0
    solver = solvers.get(name)
    _assert_proves(solver.solve(program, EXACT, cutoff=minimum + 0.5), program, minimum)
    for cutoff in (minimum - 0.5, minimum - 20, minimum - 1000):
        solution = solver.solve(program, EXACT, cutoff=cutoff)
        assert solution.status is SolveStatus.CUTOFF
        assert solution.x is None and solution.objective is None
        # Bounds from a solve with a cutoff prove nothing beyond it.
        assert solution.dual_bound == pytest.approx(cutoff, abs=1e-6)


@pytest.mark.parametrize("name", MIP)
def test_cutoff_on_infeasible_program(name):
    solution = solvers.get(name).solve(INFEASIBLE["mip"], cutoff=3.0)
    assert solution.status is SolveStatus.CUTOFF and solution.dual_bound == 3.0


@pytest.mark.parametrize("name", LP)
def test_lp_cutoff(name):
    program = knapsack(10, 4).relaxed()
    minimum = solvers.get("highs").solve(program).objective
    solution = solvers.get(name).solve(program, cutoff=minimum - 5)
    assert solution.status is SolveStatus.CUTOFF and solution.x is None
    assert solution.dual_bound == pytest.approx(minimum - 5, abs=1e-6)
    assert solvers.get(name).solve(program, cutoff=minimum + 5).objective == pytest.approx(minimum, abs=1e-4)


@pytest.mark.parametrize("name", BOUNDING)
def test_cutoff_caps_the_bound_at_time_limit(name):
    low, _ = HARD_VALUES
    solution = solvers.get(name).solve(hard(), Limits(time_limit=0.5), cutoff=low - 100)
    assert solution.x is None and solution.dual_bound <= low - 100
    assert solution.status in (SolveStatus.CUTOFF, SolveStatus.TIME_LIMIT_NO_POINT)


@pytest.mark.parametrize("name", MIP)
def test_start(name):
    program = knapsack(25, 5)
    best = solvers.get("highs").solve(program, EXACT)
    solution = solvers.get(name).solve(program, EXACT, start=best.x)
    _assert_proves(solution, program, best.objective)
    assert solution.trace[0][1] == pytest.approx(best.objective)
    partial = np.where(np.arange(25) < 5, best.x, np.nan)
    _assert_proves(solvers.get(name).solve(program, EXACT, start=partial), program, best.objective)


@pytest.mark.parametrize("name", MIP)
def test_infeasible_start_does_no_harm(name):
    program = knapsack(25, 5)
    _assert_proves(solvers.get(name).solve(program, EXACT, start=np.ones(25)), program, -988.0)


@pytest.mark.parametrize("name", LP)
def test_trace(name):
    program = knapsack(25, 5)
    solver = solvers.get(name)
    solution = solver.solve(program if solver.capabilities.mip else program.relaxed())
    _assert_trace(solution)
    assert len(solution.trace) > 1 or not solver.capabilities.callbacks


@pytest.mark.parametrize("name", STREAMING)
def test_progress_can_stop(name):
    seen = []
    solution = solvers.get(name).solve(hard(), on_progress=lambda *now: seen.append(now) or np.isfinite(now[1]))
    assert solution.status is SolveStatus.INTERRUPTED
    assert solution.x is not None and violation(hard(), solution.x) is None
    assert seen and all(seconds <= solution.seconds for seconds, _, _ in seen)


@pytest.mark.parametrize("name", STREAMING)
def test_error_in_progress_is_raised(name):
    def fail(*_now):
        raise ZeroDivisionError("from the callback")

    with pytest.raises(ZeroDivisionError, match="from the callback"):
        solvers.get(name).solve(hard(), on_progress=fail)


@pytest.mark.parametrize("name", MIP)
def test_keyboard_interrupt(name):
    solver = solvers.get(name)
    timer = threading.Timer(0.6, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    began = time.monotonic()
    # The time limit only frees the machine from the solvers that cannot be stopped.
    solution = solver.solve(hard(), Limits(time_limit=4))
    assert time.monotonic() - began < 3
    timer.join()
    assert solution.status is SolveStatus.INTERRUPTED
    if solver.capabilities.dual_bound:
        low, high = HARD_VALUES
        assert low <= solution.dual_bound <= high
        assert solution.x is not None


@pytest.mark.parametrize("name", MIP)
def test_overlapping_solves_leave_ctrl_c_alone(name):
    """Solves that start before others end: a handler that each saves and restores by itself would stay behind."""
    limits = [Limits(time_limit=seconds) for seconds in (0.3, 0.6, 0.9)]
    with ThreadPoolExecutor(3) as pool:
        solved = list(pool.map(lambda limit: solvers.get(name).solve(hard(), limit), limits))
    assert all(solution.status is SolveStatus.TIME_LIMIT for solution in solved)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("name", MIP)
def test_concurrent_solves(name):
    drawn = [knapsack(20, 5, seed) for seed in range(6)]
    solver = solvers.get(name)
    alone = [solver.solve(program, EXACT).objective for program in drawn]
    with ThreadPoolExecutor(3) as pool:
        limits = [Limits(relative_gap=1e-9, absolute_gap=1e-9, threads=1 + k % 2) for k in range(6)]
        together = list(pool.map(solver.solve, drawn, limits))
    assert [solution.status for solution in together] == [SolveStatus.OPTIMAL] * 6
    assert [solution.objective for solution in together] == pytest.approx(alone, abs=1e-6)


@pytest.mark.parametrize("name", BOUNDING)
def test_node_limit(name):
    solution = solvers.get(name).solve(knapsack(60, 20), Limits(node_limit=3))
    assert solution.status is SolveStatus.NODE_LIMIT
    assert solution.dual_bound <= -2219 + 1e-4


@pytest.mark.parametrize("name", _named("gurobi"))
def test_small_gurobi_licence(name):
    solver = solvers.get(name)
    n = 2500
    program = solvers.MixedIntegerProgram(np.ones(n), np.ones((1, n)), [3], [9], np.zeros(n), np.ones(n), np.ones(n))
    solution = solver.solve(program)
    if solver.licence().startswith("Size-limited"):
        assert solution.status is SolveStatus.LICENCE_TOO_SMALL and solution.dual_bound == -np.inf
        assert "highs" in solution.status.value
    else:
        assert solution.status is SolveStatus.OPTIMAL
