"""The shared check catches back ends that lie, and the duality bounds hold for any multipliers."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys

import numpy as np
import pytest

import solvers
from solvers import Capabilities, Cones, ConicProgram, Limits, MixedIntegerProgram, Solver, SolveStatus, running
from solvers.checks import conic_bound, lp_bound, violation
from solvers.gurobi import error_status
from solvers.running import Claim, Progress, supervise

PROGRAM = MixedIntegerProgram(
    [1.0, 1.0], [[1.0, 2.0]], [2.0], [np.inf], [0.0, 0.0], [3.0, 3.0], [True, False], offset=0.25
)
"""Minimum 1.25, at (0, 1)."""


def test_no_solver_prints_a_banner() -> None:
    """Not even when its library starts, and not beside the one JSON object that a command prints."""
    script = """
import numpy as np, solvers
program = solvers.MixedIntegerProgram([1.0, 1.0], [[1.0, 2.0]], [2.0], [np.inf], [0.0, 0.0], [3.0, 3.0], [True, False])
for name in solvers.names():
    solver = solvers.get(name)
    if solver.is_available() and solver.capabilities.mip:
        solution = solver.solve(program, solvers.Limits(time_limit=10.0))
        assert solution.status is solvers.SolveStatus.OPTIMAL and abs(solution.objective - 1.0) < 1e-6, (name, solution)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done


class Liar(Solver):
    """Answers with a given claim, after reporting a point or not."""

    def __init__(self, claim: Claim, available: bool = True) -> None:
        self.claim, self.available = claim, available

    name = "liar"
    capabilities = Capabilities(lp=True, mip=True)

    def is_available(self) -> bool:
        return self.available

    def licence(self) -> str:
        return ""

    def version(self) -> str:
        return ""

    def _run(self, program, limits, start, cutoff, progress):
        return self.claim


def _lie(*claim, **options) -> solvers.Solution:
    return Liar(Claim(*claim)).solve(PROGRAM, **options)


def test_rows_are_checked_up_to_the_rounding_of_their_terms() -> None:
    """A point that satisfies a row of large terms that cancel, as far as floating point can tell, is a point of it."""
    program = MixedIntegerProgram([1.0, 1.0], [[0.1, -0.3]], [2.7], [2.7], [-1e30] * 2, [1e30] * 2)
    assert violation(program, np.array([3e28, 1e28])) is None
    assert violation(program, np.array([3e28, 1.001e28])) is not None
    assert violation(program, np.array([3.0, 1.0])) is not None


@pytest.mark.parametrize(("size", "reach", "lost"), [(1e-10, 1e12, True), (1e-10, 10.0, False), (1e-8, 1e12, False)])
def test_a_mixed_integer_program_that_loses_coefficients_is_not_solved(size: float, reach: float, lost: bool) -> None:
    """HiGHS drops the coefficient, and would say that no point reaches the row's side."""
    program = MixedIntegerProgram([1.0, -1.0], [[size, -1.0]], [-0.5], [np.inf], [0.0, 0.0], [reach, 1.0], [0, 1])
    for name in ("highs", "pulp"):
        found = solvers.get(name).solve(program)
        assert (found.status is SolveStatus.NUMERICAL_TROUBLE and np.isinf(found.dual_bound)) == lost, found
        assert lost == ("drop coefficients" in found.message)


def test_a_bound_allows_for_what_underflows_in_a_reduced_cost() -> None:
    """``1e-200 * 1e-200`` is 0 in floating point, but times 1e300 it is more than the bound."""
    program = MixedIntegerProgram([0.0], [[1e-200]], [0.0], [np.inf], [-1e300], [1e300])
    assert lp_bound(program, np.array([1e-200])) <= -1e-100


def test_honest_claim_passes():
    solution = _lie(SolveStatus.OPTIMAL, np.array([0.0, 1.0]), 1.25)
    assert solution.status is SolveStatus.OPTIMAL and solution.objective == solution.dual_bound == 1.25


@pytest.mark.parametrize(
    ("x", "words"),
    [
        ([0.0, 0.5], "row 0 is violated"),
        ([0.5, 1.0], "variable 0 must be an integer"),
        ([-1.0, 2.0], "variable 0 is violated"),
        ([0.0, np.nan], "not finite"),
        ([0.0], "the point has shape"),
    ],
)
def test_false_point_is_not_a_number(x, words):
    solution = _lie(SolveStatus.OPTIMAL, np.array(x), 1.25)
    assert solution.status is SolveStatus.NUMERICAL_TROUBLE and words in solution.message
    assert solution.x is None and solution.objective is None and solution.dual_bound == -math.inf


def test_suboptimal_point_called_optimal():
    solution = _lie(SolveStatus.OPTIMAL, np.array([2.0, 1.0]), 1.25)
    assert solution.status is SolveStatus.NUMERICAL_TROUBLE and "gap" in solution.message


@pytest.mark.parametrize(
    ("x", "y", "status"), [(1.0, 1.0, SolveStatus.OPTIMAL), (1.0, 0.5, SolveStatus.NUMERICAL_TROUBLE), (2.0, 1.0, None)]
)
def test_reduced_accuracy_is_judged_by_the_checked_point_and_multipliers(x, y, status):
    program = MixedIntegerProgram([1.0], [[1.0]], [1.0], [np.inf], [0.0], [3.0], [False])  # minimum 1
    solution = Liar(Claim(SolveStatus.NUMERICAL_TROUBLE, np.array([x]), y=np.array([y]))).solve(program)
    assert solution.status is (status or SolveStatus.NUMERICAL_TROUBLE)
    assert solution.objective == x and y - 1e-12 < solution.dual_bound <= y  # rounded down


def test_start_better_than_the_optimum_claimed():
    solution = _lie(SolveStatus.OPTIMAL, np.array([2.0, 1.0]), 3.25, start=np.array([0.0, 1.0]))
    assert (
        solution.status is SolveStatus.NUMERICAL_TROUBLE and "above the value of a feasible point" in solution.message
    )
    assert solution.objective == 1.25 and solution.dual_bound == -math.inf


@pytest.mark.parametrize("status", [SolveStatus.INFEASIBLE, SolveStatus.CUTOFF])
def test_infeasible_with_a_feasible_start(status):
    solution = _lie(status, start=np.array([0.0, 1.0]), cutoff=5.0)
    assert solution.status is SolveStatus.NUMERICAL_TROUBLE and solution.objective == 1.25


def test_false_point_at_time_limit_is_dropped():
    solution = _lie(SolveStatus.TIME_LIMIT, np.array([0.0, 0.0]), 0.5)
    assert solution.status is SolveStatus.TIME_LIMIT_NO_POINT and solution.x is None and solution.dual_bound == 0.5


def test_bound_with_cutoff_holds_up_to_the_cutoff():
    # HiGHS with a cutoff under the optimum: "optimal", a worse point, and a bound above the cutoff.
    solution = _lie(SolveStatus.OPTIMAL, np.array([0.0, 1.0]), 1.25, cutoff=1.0)
    assert solution.status is SolveStatus.CUTOFF and solution.x is None and solution.dual_bound == 1.0
    solution = _lie(SolveStatus.TIME_LIMIT, None, 7.0, cutoff=1.0)
    assert solution.status is SolveStatus.TIME_LIMIT_NO_POINT and solution.dual_bound == 1.0


def test_not_installed_and_unsupported():
    assert Liar(Claim(SolveStatus.OPTIMAL), available=False).solve(PROGRAM).status is SolveStatus.NOT_INSTALLED
    conic = ConicProgram([1.0], [[-1.0]], [0.0], Cones(nonneg=1))
    assert Liar(Claim(SolveStatus.OPTIMAL)).solve(conic).status is SolveStatus.UNSUPPORTED


def test_highs_refuses_unbounded_integers():
    # HiGHS issue 3274: 1.15.1 says 1, the minimum is 0.
    inf = np.inf
    program = MixedIntegerProgram(
        [0.0, 1, 0, 0],
        [[0, 1, -1, 0], [1, 0, 1, -1], [0, 0, -68, -1]],
        [0, 0, -12],
        [inf, 0, inf],
        [-inf, -inf, 0, 0],
        [inf] * 4,
        [1, 1, 0, 1],
    )
    for name in ("highs", "pulp:HiGHS", "cvxpy:HIGHS"):
        assert solvers.get(name).solve(program).status is SolveStatus.UNSUPPORTED
    assert solvers.get("pulp").solve(program).objective == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_lp_bound_holds_for_any_multipliers(seed):
    random = np.random.default_rng(seed)
    A = random.normal(size=(4, 6))
    lower, upper = -random.random(6), random.random(6)
    level = A @ (lower + (upper - lower) * random.random(6))
    row_lower = np.where(random.random(4) < 0.3, -np.inf, level - 0.1)
    program = MixedIntegerProgram(random.normal(size=6), A, row_lower, level + 0.1, lower, upper, offset=2.0)
    minimum = solvers.get("highs").solve(program).objective
    for scale in (0.0, 0.1, 1.0, 10.0):
        assert lp_bound(program, scale * random.normal(size=4)) <= minimum + 1e-9


def test_lp_bound_with_free_variables():
    program = MixedIntegerProgram([1.0], [[1.0]], [2.0], [np.inf], [-np.inf], [np.inf])
    assert 2.0 - 1e-12 < lp_bound(program, np.array([1.0])) <= 2.0  # rounded down
    assert lp_bound(program, np.array([0.5])) == -math.inf


def test_conic_bound_needs_a_feasible_dual():
    program = ConicProgram([1.0], [[-1.0]], [-2.0], Cones(nonneg=1), offset=1.0)  # x >= 2
    assert conic_bound(program, np.array([1.0])) == 3.0
    assert conic_bound(program, np.array([0.9])) == -math.inf
    assert violation(program, np.array([2.0])) is None
    assert "nonnegative cone" in violation(program, np.array([1.9]))


def test_status_maps_are_exhaustive():
    import highspy

    from solvers.highs import STATUSES

    assert set(STATUSES) == set(highspy.HighsModelStatus.__members__.values())
    cvxpy_settings = importlib.import_module("cvxpy.settings")
    from solvers.cvxpy import STATUSES as CVXPY

    stated = {
        *cvxpy_settings.SOLUTION_PRESENT,
        *cvxpy_settings.INF_OR_UNB,
        *cvxpy_settings.ERROR,
        "user_limit",
    }
    assert stated <= set(CVXPY)


def test_gurobi_statuses_are_exhaustive():
    gurobipy = pytest.importorskip("gurobipy")
    from solvers.gurobi import STATUSES

    codes = {value for name, value in vars(gurobipy.GRB.Status).items() if name.isupper()}
    codes |= {getattr(gurobipy.GRB.Status, name) for name in dir(gurobipy.GRB.Status) if name.isupper()}
    assert codes and codes <= set(STATUSES)
    assert error_status(gurobipy.GRB.Error.SIZE_LIMIT_EXCEEDED) is SolveStatus.LICENCE_TOO_SMALL
    assert error_status(gurobipy.GRB.Error.NO_LICENSE) is SolveStatus.NO_LICENCE


def test_registry():
    listed = {info.name: info for info in solvers.all_solvers()}
    assert listed["highs"].available and listed["highs"].capabilities.callbacks
    assert all(info.licence and isinstance(info.version, str) for info in listed.values())
    assert solvers.get("HiGHS").name == "highs" and solvers.get("cvxpy:clarabel").name == "cvxpy:CLARABEL"
    with pytest.raises(ValueError, match="Did you mean highs"):
        solvers.get("hihgs")
    with pytest.raises(ValueError, match="Did you mean cvxpy:CLARABEL"):
        solvers.get("cvxpy:CLARABLE")
    with pytest.raises(ValueError, match="Known here: highs"):
        solvers.get("zzzzzz")


def test_import_works_without_optional_packages():
    code = (
        "import sys\n"
        "for name in ('gurobipy', 'pulp', 'cvxpy'): sys.modules[name] = None\n"
        "import solvers, numpy as np\n"
        "assert 'highs' in solvers.names() and not solvers.get('gurobi').is_available()\n"
        "p = solvers.MixedIntegerProgram([1.0], [[1.0]], [0.5], [1], [0], [1], [True])\n"
        "assert solvers.get('highs').solve(p).objective == 1\n"
        "assert solvers.get('pulp').solve(p).status is solvers.SolveStatus.NOT_INSTALLED\n"
        "assert solvers.get('gurobi').solve(p).status is solvers.SolveStatus.NOT_INSTALLED\n"
        "solvers.all_solvers()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_limits_defaults_are_exact():
    assert Limits().relative_gap <= 1e-6 and Limits().threads == 1


def test_a_thread_that_finds_no_memory_to_begin_with_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """``Thread.start`` waits for ever where the new thread fails before it can say that it is there."""
    monkeypatch.setattr(running, "BEGINNING", 0.01)
    monkeypatch.setattr("_thread.start_new_thread", lambda function, arguments: 0)
    with pytest.raises(MemoryError, match="did not begin"):
        supervise(lambda: Claim(SolveStatus.OPTIMAL), Progress(np.inf, None), Limits())
