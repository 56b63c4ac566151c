"""``milp`` against the enumeration of all patterns, with every solver, and what it does when things go wrong."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import math
import signal
import time
from typing import Any

import nets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lipcompare
import solvers
from experiments.models import cnn
from lipcompare import Box, Contradiction, InvalidInput, Method, Problem, Status, UnsupportedOperation
from lipcompare.attack.search import search
from lipcompare.methods.base import HURRIED
from lipcompare.methods.enumerate import Enumerate
from lipcompare.methods.lp import Lp
from lipcompare.methods.milp import STATUSES, Milp, RowStrategy, cross_check
from lipcompare.programs.preactivation import Refinement
from lipcompare.regions.program import Deepest
from solvers.cvxpy import Cvxpy
from solvers.highs import Highs
from solvers.running import Claim, Progress

FAMILIES = sorted(f for f, make in nets.FAMILIES.items() if make(0).piecewise_linear)
SMALL = {
    "dense": lambda seed: nets.dense(seed, (3, 4, 4, 2)),
    "leaky": lambda seed: nets.dense(seed, (3, 4, 4, 2), alpha=0.2),
    "residual": nets.residual,
    "pooling": nets.pooling,
    "concatenation": nets.concatenation,
}
GAP = 1e-6


def installed() -> list[str]:
    names = ["highs"]
    if importlib.util.find_spec("pulp"):
        names.append("pulp")
    if importlib.util.find_spec("gurobipy"):
        names.append("gurobi")
    if importlib.util.find_spec("cvxpy") and "cvxpy:HIGHS" in solvers.names():
        names.append("cvxpy:HIGHS")
    return names


@functools.cache
def hand_picked(family: str, norm: str) -> tuple[Problem, lipcompare.Bound]:
    """A problem and what enumeration finds."""
    problem = nets.problem(SMALL[family](4), 0.2 if family == "pooling" else 0.5, norm=norm)
    return problem, lipcompare.bound(problem, Enumerate(limit=24), gap=1e-9)


def agree(problem: Problem, method: Milp, oracle: lipcompare.Bound | None = None) -> None:
    """The method proves the value that enumeration finds."""
    oracle = oracle or lipcompare.bound(problem, Enumerate(limit=24), gap=1e-9)
    assert oracle.status is Status.EXACT
    result = lipcompare.bound(problem, method, gap=GAP, time_limit=60)
    assert result.status in (Status.EXACT, Status.COMPLETE), result.sentence
    truth = oracle.overall_upper[0]
    # Gurobi's dual tolerance is ten times as large, and so is what is added to its bounds.
    slack = (2e-4 if method.solver == "gurobi" else 1e-5) * (1 + truth)
    assert result.overall_lower[0] <= truth * (1 + 1e-9)
    assert truth * (1 - 1e-9) <= result.overall_upper[0] <= truth + slack
    assert (result.upper >= oracle.lower * (1 - 1e-9)).all()
    assert (result.lower <= oracle.upper * (1 + 1e-9)).all()
    if method.rows is RowStrategy.EVERY:
        np.testing.assert_allclose(result.upper, oracle.upper, rtol=1e-5, atol=1e-5)


@settings(max_examples=10, deadline=None)
@given(
    family=st.sampled_from(sorted(SMALL)),
    seed=st.integers(0, 10**6),
    eps=st.floats(0.05, 0.7),
    norm=st.sampled_from(["inf", "1"]),
    rows=st.sampled_from(list(RowStrategy)),
    tightening=st.sampled_from(list(Refinement)),
    screen=st.booleans(),
)
def test_equals_enumeration(family, seed, eps, norm, rows, tightening, screen) -> None:
    problem = nets.problem(SMALL[family](seed), eps / 3 if family == "pooling" else eps, seed, norm=norm)
    agree(problem, Milp(rows=rows, tightening=tightening, screen=screen))


@pytest.mark.parametrize("norm", ["inf", "1"])
def test_equals_enumeration_on_a_convolutional_network(norm: str) -> None:
    problem = nets.problem(nets.conv(5), 0.03, norm=norm)
    agree(problem, Milp())


@pytest.mark.parametrize("solver", installed())
@pytest.mark.parametrize(("family", "norm"), [("dense", "inf"), ("residual", "1"), ("pooling", "inf"), ("dense", "1")])
def test_every_solver(solver: str, norm: str, family: str) -> None:
    problem, oracle = hand_picked(family, norm)
    agree(problem, Milp(solver=solver, screen=False, tightening=Refinement.CROWN), oracle)


def test_a_kink_counts() -> None:
    box = Box(torch.tensor([[-1.0]]).double(), torch.tensor([[1.0]]).double())
    for rows in RowStrategy:
        result = lipcompare.bound(Problem(nets.kinked(), box), Milp(rows=rows))
        assert result.status is Status.EXACT
        assert result.upper[0, 0] == pytest.approx(2.0, rel=1e-4)
        assert result.lower[0, 0] == pytest.approx(2.0)


@settings(max_examples=5, deadline=None)
@given(family=st.sampled_from(sorted(SMALL)), seed=st.integers(0, 10**6), eps=st.floats(0.05, 0.7))
def test_order_of_the_relaxations(family: str, seed: int, eps: float) -> None:
    problem = nets.problem(SMALL[family](seed), eps, seed)
    exact = lipcompare.bound(problem, Milp(rows=RowStrategy.EVERY), gap=GAP)
    linear = lipcompare.bound(problem, Lp())
    propagated = lipcompare.bound(problem, "lbp")
    assert (exact.lower <= linear.upper * (1 + 1e-9)).all()
    assert (linear.upper <= propagated.upper + 1e-6).all()


def hard_problem() -> Problem:
    return nets.problem(nets.dense(1, (16, 48, 48, 48, 5)), 0.4)


@pytest.mark.parametrize("solver", installed()[:3])
def test_the_time_limit_holds_and_leaves_a_certified_interval(solver: str) -> None:
    problem = hard_problem()
    began = time.perf_counter()
    result = lipcompare.bound(problem, Milp(solver=solver), time_limit=2.0)
    seconds = time.perf_counter() - began
    assert seconds <= 1.1 * 2.0 + 1.0
    assert result.status in (Status.TIME_LIMIT, Status.LICENCE_TOO_SMALL)
    assert np.isfinite(result.upper).all() and (result.lower > 0).all()
    assert (result.upper >= nets.sampled_norms(problem).numpy()).all()


@pytest.mark.parametrize("method", [Milp(), Lp()])
def test_a_network_too_large_to_encode_gets_the_propagated_bound_in_time(method: Milp | Lp) -> None:
    torch.manual_seed(0)
    module = cnn((1, 28, 28), (8, 8), (100, 10), kernel=4)
    problem = Problem.around(lipcompare.load(module.double(), input_shape=(1, 28, 28)), 0.5, 2 / 255)
    began = time.perf_counter()
    result = lipcompare.bound(problem, method, time_limit=2.0)
    assert time.perf_counter() - began <= 2 * 2.0 + 1.0
    assert result.status is Status.TIME_LIMIT  # in the propagation or after it, as fast as the machine is
    assert HURRIED in lipcompare.bound(problem, method, time_limit=0.05).sentence
    assert np.isfinite(result.upper).all() and (result.upper >= nets.sampled_norms(problem).numpy()).all()
    assert result.trace[0].upper < np.inf and (method.proves == "upper" or (result.lower > 0).all())


def test_a_licence_that_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    solve = solvers.Solver.solve

    def refuse(self, *args, **kwargs):
        return dataclasses.replace(
            solve(self, *args, **kwargs), status=solvers.SolveStatus.LICENCE_TOO_SMALL, x=None, dual_bound=-math.inf
        )

    monkeypatch.setattr("solvers.highs.Highs.solve", refuse, raising=False)
    problem, _ = hand_picked("dense", "inf")
    result = lipcompare.bound(problem, Milp(tightening=Refinement.CROWN, screen=False))
    assert result.status is Status.LICENCE_TOO_SMALL
    assert np.isfinite(result.upper).all()


def test_every_status_of_a_solver_means_something() -> None:
    assert set(STATUSES) == set(solvers.SolveStatus)


def test_unsupported_problems_say_why() -> None:
    network = nets.dense(0)
    assert lipcompare.bound(nets.problem(network, 0.1, norm="2"), Milp()).status is Status.UNSUPPORTED
    result = lipcompare.bound(nets.problem(nets.FAMILIES["sigmoid"](0), 0.1), Milp())
    assert result.status is Status.UNSUPPORTED and "smooth" in result.detail


def test_an_unknown_solver_is_refused_at_once() -> None:
    with pytest.raises(InvalidInput, match="No solver called 'higs'"):
        Milp(solver="higs")


def test_a_solver_that_is_known_and_not_here_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    families = {"cvxpy": (Cvxpy, lambda: ("SCS",), lambda: ("SCS", "SCIP"))}
    monkeypatch.setattr("solvers.registry._FAMILIES", families)
    with pytest.raises(UnsupportedOperation, match="none on this machine"):
        Milp(solver="scip")


def test_a_solver_without_integers_leaves_what_was_proved_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solvers.highs.Highs.capabilities", solvers.Capabilities(lp=True))
    monkeypatch.setattr("solvers.names", lambda: ("highs", "pulp"))
    monkeypatch.setattr("solvers.cbc.Cbc.is_available", lambda self: True)
    result = lipcompare.bound(nets.problem(nets.dense(4, (4, 12, 12, 2)), 0.4), Milp(screen=False), time_limit=10.0)
    assert result.status is Status.UNSUPPORTED and result.proves == "interval"
    assert result.sentence == (
        "highs has no integer variables: the bounds are those from before the integer programs, for which there are "
        "pulp."
    )


def test_contradictions_raise_with_both_sides() -> None:
    cross_check("highs", 2.0, 2.1, 2.0, 3.0)
    with pytest.raises(Contradiction, match=r"at most 1\.5.*2\.0"):
        cross_check("highs", None, 1.5, 2.0, 3.0)
    with pytest.raises(Contradiction, match=r"attains 4\.0.*3\.0"):
        cross_check("highs", 4.0, 5.0, 2.0, 3.0)


def test_a_program_that_excludes_the_attack_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that declare an unstable neuron stable: the mistake that public exact programs were seen to make."""
    problem = nets.problem(nets.dense(2, (3, 5, 5, 2)), 0.6)

    def wrong(network, box, *_args, **_kwargs):
        bounds = lipcompare.preactivation.preactivation_bounds(network, box)
        return {k: type(z)(z.lower + 0.4 * (z.upper - z.lower), z.upper) for k, z in bounds.items()}

    monkeypatch.setattr("lipcompare.methods.milp.refined_bounds", wrong)
    with pytest.raises(Contradiction):
        lipcompare.bound(problem, Milp(screen=False, rows=RowStrategy.EVERY))


def test_a_solver_that_lies_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    solve = solvers.get("highs").solve.__func__  # type: ignore[attr-defined]

    def lie(self, *args, **kwargs):
        solution = solve(self, *args, **kwargs)
        return dataclasses.replace(solution, dual_bound=solution.dual_bound + 0.5, x=None, objective=None)

    problem = nets.problem(nets.dense(8, (4, 8, 8, 3)), 0.6)
    honest = lipcompare.bound(problem, Milp(screen=False, tightening=Refinement.CROWN))
    assert honest.status is Status.EXACT
    monkeypatch.setattr("solvers.highs.Highs.solve", lie, raising=False)
    monkeypatch.setattr("lipcompare.programs.witness.deepest", lambda regions: [Deepest(None, -np.inf)])
    with pytest.raises(Contradiction, match="highs says"):
        lipcompare.bound(problem, Milp(screen=False, tightening=Refinement.CROWN))


@pytest.mark.parametrize(
    ("method", "mixed"),
    [(Milp(), False), (Milp(), True), (Milp(screen=False, tightening=Refinement.CROWN), True)],
    ids=["a region", "a pre-activation", "the norm"],
)
def test_ctrl_c_keeps_the_interval(method: Milp, mixed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It arrives while a solver runs, which may have finished before it is heard."""
    asked: list[Progress] = []
    run = Highs._run

    def interrupted(
        self: Highs, program: solvers.MixedIntegerProgram, limits: object, start: object, cutoff: float, into: Progress
    ) -> Claim:
        asked.append(into)
        if program.is_mip or not mixed:
            monkeypatch.undo()
            signal.raise_signal(signal.SIGINT)  # the main thread takes it up when it can, as one from a terminal
        return run(self, program, limits, start, cutoff, into)  # type: ignore[arg-type]

    monkeypatch.setattr(Highs, "_run", interrupted)
    result = lipcompare.bound(hard_problem(), method, time_limit=600)
    assert asked
    assert result.status is Status.INTERRUPTED
    assert result.seconds < 600
    assert np.isfinite(result.upper).all()


def test_the_trace_only_improves() -> None:
    seen = []
    result = lipcompare.bound(
        nets.problem(nets.dense(1, (8, 12, 12, 3)), 0.5), Milp(), gap=1e-6, on_progress=seen.append
    )
    assert list(result.trace) == seen
    lowers, uppers = [p.lower for p in seen], [p.upper for p in seen]
    assert lowers == sorted(lowers) and uppers == sorted(uppers, reverse=True)
    assert seen[-1].upper == pytest.approx(result.overall_upper[0])


LIES = {
    "unbounded": Claim(solvers.SolveStatus.UNBOUNDED),
    "infeasible": Claim(solvers.SolveStatus.INFEASIBLE),
    "either": Claim(solvers.SolveStatus.INFEASIBLE_OR_UNBOUNDED),
    "bound inf": Claim(solvers.SolveStatus.TIME_LIMIT, dual_bound=math.inf),
    "bound 1e300": Claim(solvers.SolveStatus.TIME_LIMIT, dual_bound=1e300),
    "bound 0": Claim(solvers.SolveStatus.TIME_LIMIT, dual_bound=0.0),
    "bound nan": Claim(solvers.SolveStatus.TIME_LIMIT, dual_bound=math.nan),
    "optimal without a point": Claim(solvers.SolveStatus.OPTIMAL, dual_bound=0.0),
}


@pytest.mark.parametrize("lie", sorted(LIES))
@pytest.mark.parametrize(
    ("norm", "method"),
    [("inf", Milp()), ("1", Milp(tightening=Refinement.CROWN, rows=RowStrategy.MAXIMUM)), ("inf", Lp())],
)
def test_a_solvers_word_is_no_bound(norm: str, method: Method, lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, oracle = hand_picked("dense", norm)

    def claims(self: Highs, program: object, limits: object, start: object, cutoff: float, progress: Progress) -> Claim:
        progress.report(math.inf, LIES[lie].dual_bound)
        return LIES[lie]

    monkeypatch.setattr(Highs, "_run", claims)
    try:
        result = lipcompare.bound(problem, method)
    except Contradiction:  # the solver against the attack: an error, not a result
        return
    assert (result.overall_upper >= oracle.overall_upper * (1 - 1e-9)).all()
    assert result.status is not Status.EXACT or result.overall_lower >= oracle.overall_lower * (1 - 1e-4)


def test_rows_under_the_best_one_need_no_entry_above_it() -> None:
    """A program of p = 1 leaves out entries under the best row's value, and once had no point then."""
    torch.manual_seed(26)
    layers = torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 5)
    network = lipcompare.load(torch.nn.Sequential(*layers))
    problem = Problem.around(network, torch.randn(1, 4), 1.0, norm="1")
    result = lipcompare.bound(problem, "milp")
    assert result.status is Status.EXACT
    assert result.overall_upper[0] == pytest.approx(0.24567, abs=2e-5)


@pytest.mark.parametrize("knows", [True, False])
@pytest.mark.parametrize("seed", [15, 59])
def test_entries_that_a_program_leaves_out_count_in_its_row(
    seed: int, knows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For p = 1 what cannot exceed the best row is not in the programs of the others: their bound is not below that.

    It was, which contradicted the attack where that knew better, and was believed where it did not.
    """
    torch.manual_seed(seed)
    layers = torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    network = lipcompare.load(torch.nn.Sequential(*layers).double())
    problem = Problem.around(network, torch.rand(1, 3, dtype=torch.float64), 0.3, norm="1")
    truth = lipcompare.bound(problem, "enumerate")
    if not knows:
        best = truth.upper[0] == truth.upper.max()

        def only_the_best(*given: Any, **how: Any) -> torch.Tensor:
            points = search(*given, **how)
            points[0, ~torch.from_numpy(best).to(points.device)] = problem.box.window.center[0].to(points)
            return points

        monkeypatch.setattr("lipcompare.methods.milp.search", only_the_best)
    result = lipcompare.bound(problem, "milp")
    assert (result.upper >= truth.lower * (1 - 1e-9)).all() and result.status is Status.EXACT


def test_a_solver_that_is_not_there_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solvers.gurobi.Gurobi.is_available", lambda self: False)
    problem = nets.problem(nets.dense(0), 1.0)
    for method in (Milp(solver="gurobi"), Lp(solver="gurobi")):
        result = lipcompare.bound(problem, method)
        assert result.status is Status.UNAVAILABLE and np.isfinite(result.overall_upper[0])
        assert result.detail == "pip install 'lipcompare[gurobi]' brings gurobi."


def test_what_highs_drops_is_far_below_what_points_may_violate() -> None:
    """HiGHS called 0.196 optimal and lipbab attains 0.256 when both were 1e-9."""
    torch.manual_seed(2)
    network = lipcompare.load(cnn((1, 5, 5), (3,), (8, 3)), input_shape=(1, 5, 5))
    one = Problem.around(network, 0.5, 0.15, functionals=[[1.0, 0.0, 0.0]])
    found, attained = (lipcompare.bound(one, method, time_limit=60.0) for method in ("milp", "lipbab"))
    assert found.status is attained.status is Status.EXACT
    assert found.lower[0, 0] == pytest.approx(attained.lower[0, 0], rel=1e-4)
