"""What every registered method must do, whatever it is. A new method is tested by being registered."""

from __future__ import annotations

import itertools
import math

import nets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lipcompare
from lipcompare import METHODS, Box, Problem, Status
from lipcompare.budget import TracePoint

ALL = sorted(METHODS)
LIMIT = 20.0
SHORT = 1.5  # smooth networks: halving boxes does not end of itself


def run(problem: Problem, method: str, limit: float = LIMIT) -> lipcompare.Bound:
    result = lipcompare.bound(problem, method, time_limit=limit)
    assert result.lower.shape == result.upper.shape == (problem.batch, problem.rows)
    return result


def supported(problem: Problem, method: str) -> bool:
    return lipcompare.methods.get(method).supports(problem) is None


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("family", sorted(nets.FAMILIES))
def test_bounds_hold(method: str, norm: str, family: str) -> None:
    problem = nets.problem(nets.FAMILIES[family](7), 0.2, norm=norm)
    if not supported(problem, method):
        result = run(problem, method)
        assert result.status is Status.UNSUPPORTED and result.detail
        assert result.proves == "nothing"
        return
    result = run(problem, method, LIMIT if problem.network.piecewise_linear else SHORT)
    seen = nets.sampled_norms(problem).numpy()
    assert (result.upper >= seen * (1 - 1e-9)).all()
    ceiling = lipcompare.bound(problem, "lbp", tightening="interval").upper
    assert (result.lower <= ceiling * (1 + 1e-9)).all()
    assert result.proves != "nothing"
    if result.status is Status.EXACT:
        assert (result.gap <= 1e-4 + 1e-9).all()


@pytest.mark.parametrize("method", ALL)
def test_a_batch_gives_what_its_boxes_give_one_by_one(method: str) -> None:
    network = nets.dense(3, (4, 6, 6, 3))
    together = nets.problem(network, 0.3, batch=4)
    if not supported(together, method):
        pytest.skip("not for this network")
    result = run(together, method, 120.0)
    for b in range(together.batch):
        alone = run(together.example(b), method, 120.0)
        np.testing.assert_allclose(result.lower[b], alone.lower[0], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(result.upper[b], alone.upper[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", [m for m in ALL if m != "naive"])
@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_a_point_gives_the_gradient(method: str, norm: str) -> None:
    problem = nets.problem(nets.residual(5), 0.0, norm=norm)
    if not supported(problem, method):
        assert run(problem, method).status is Status.UNSUPPORTED
        return
    result = run(problem, method)
    expected = nets.sampled_norms(problem, samples=1).numpy()
    if METHODS[method].proves != "lower":
        np.testing.assert_allclose(result.upper, expected, rtol=1e-9)
    if METHODS[method].proves != "upper":
        np.testing.assert_allclose(result.lower, expected, rtol=1e-9)


@pytest.mark.parametrize("method", ALL)
def test_a_kink_has_every_clarke_slope(method: str) -> None:
    problem = Problem.around(nets.kinked(), 0.0, 0.5)
    if not supported(problem, method):
        assert run(problem, method).status is Status.UNSUPPORTED
        return
    result = run(problem, method)
    if METHODS[method].proves != "lower":
        assert result.upper[0, 0] >= 2 - 1e-9
    if METHODS[method].proves != "upper":
        assert result.lower[0, 0] == pytest.approx(2)
        assert result.witnesses is not None and result.witnesses.at_kink.all()


@pytest.mark.parametrize("method", ALL)
def test_a_constant_network_has_constant_zero(method: str) -> None:
    network = nets.dense(0, (3, 4, 2))
    silent = torch.zeros(2, 2, dtype=torch.float64)
    problem = Problem(network, Box.ball(torch.zeros(1, 3, dtype=torch.float64), 0.1), "inf", silent)
    if not supported(problem, method):
        pytest.skip("not for this network")
    result = run(problem, method)
    assert (result.lower == 0).all()
    if METHODS[method].proves != "lower":
        assert (result.upper <= 1e-12).all()


@pytest.mark.parametrize("method", ALL)
def test_single_precision_and_margins(method: str) -> None:
    network = nets.dense(11, (3, 5, 3))
    center = torch.full((1, 3), 0.5, dtype=torch.float32)
    rows = lipcompare.margins(1, 3)
    problem = Problem(network, Box.ball(center, 0.1), "inf", rows)
    if not supported(problem, method):
        assert run(problem, method).status is Status.UNSUPPORTED
        return
    result = run(problem, method)
    double = Problem(network, Box.ball(center.double(), 0.1), "inf", rows)
    seen = nets.sampled_norms(double).numpy()
    assert result.dtype == "float32" and result.upper.shape == (1, 2)
    assert (result.upper >= seen * (1 - 1e-5)).all()


@pytest.mark.parametrize(("failure", "ends_at"), [(KeyboardInterrupt, 1), (MemoryError, 2), (ZeroDivisionError, 3)])
@pytest.mark.parametrize("method", ALL)
def test_what_was_reported_is_returned_whatever_ends_the_run(
    method: str, failure: type[BaseException], ends_at: int
) -> None:
    problem = nets.problem(nets.dense(0, (3, 5, 5, 2)), 0.3, batch=2)
    reported: list[TracePoint] = []

    def watch(point: TracePoint) -> None:
        reported.append(point)
        if len(reported) == ends_at:
            raise failure("in the callback")

    result = lipcompare.bound(problem, method, time_limit=LIMIT, on_progress=watch)
    assert len(reported) <= ends_at + 1, "it went on"  # a search that ends on an interrupt tells its result
    ends = (Status.INTERRUPTED, Status.OUT_OF_MEMORY, Status.MEMORY_LIMIT, Status.CRASHED, Status.EXACT)
    assert result.status in ends or len(reported) < ends_at
    assert result.overall_upper.max() <= reported[-1].upper * (1 + 1e-12)
    assert result.overall_lower.max() >= reported[-1].lower * (1 - 1e-9)


@settings(max_examples=40, deadline=None)
@given(network=nets.networks(), eps=st.sampled_from([0.0, 0.05, 0.4]), seed=st.integers(0, 100))
def test_relaxations_are_ordered(network: lipcompare.Network, eps: float, seed: int) -> None:
    problem = nets.problem(network, eps, seed)
    uppers = [lipcompare.bound(problem, m, tightening="interval").upper for m in ("lbp", "recurjac", "ibp")]
    uppers.append(lipcompare.bound(problem, "naive").upper)
    for tighter, looser in itertools.pairwise(uppers):
        assert (tighter <= looser * (1 + 1e-9) + 1e-12).all()
    assert (uppers[0] >= nets.sampled_norms(problem).numpy() * (1 - 1e-9)).all()


@settings(max_examples=25, deadline=None)
@given(network=nets.networks(), norm=st.sampled_from(["inf", "2", "1"]), seed=st.integers(0, 100))
def test_linear_bounds_hold_for_every_norm_and_tightening(network: lipcompare.Network, norm: str, seed: int) -> None:
    problem = nets.problem(network, 0.1, seed, norm=norm)
    seen = nets.sampled_norms(problem).numpy()
    for method in ("lbp", "recurjac", "ibp"):
        for tightening in ("interval", "crown", "alpha-crown"):
            result = lipcompare.bound(problem, method, tightening=tightening)
            assert (result.upper >= seen * (1 - 1e-9)).all(), (method, tightening)


@settings(max_examples=25, deadline=None)
@given(network=nets.networks(), seed=st.integers(0, 100))
def test_interval_gates_are_monotone_in_the_radius(network: lipcompare.Network, seed: int) -> None:
    bounds = [
        lipcompare.bound(nets.problem(network, eps, seed), "lbp", tightening="interval").overall_upper[0]
        for eps in (0.0, 0.02, 0.1, 0.5)
    ]
    assert all(small <= large * (1 + 1e-9) + 1e-12 for small, large in itertools.pairwise(bounds))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), alpha=st.sampled_from([0.0, 0.3, -1.0]))
def test_linear_bound_lies_over_every_pattern_of_the_gates(seed: int, alpha: float) -> None:
    problem = nets.problem(nets.dense(seed, (2, 4, 4, 2), alpha), 0.5, seed)
    free = nets.free_gate_maximum(problem).numpy()
    assert (lipcompare.bound(problem, "lbp", tightening="interval").upper >= free * (1 - 1e-9)).all()


def test_rows_are_bounded_one_by_one() -> None:
    problem = nets.problem(nets.dense(2, (3, 6, 4)), 0.2)
    result = lipcompare.bound(problem, "lbp")
    for row in range(problem.rows):
        alone = Problem(problem.network, problem.box, problem.norm, problem.functionals[:, row : row + 1])
        assert lipcompare.bound(alone, "lbp").upper[0, 0] == pytest.approx(result.upper[0, row], rel=1e-12)


def test_the_trace_ends_at_the_result() -> None:
    result = lipcompare.bound(nets.problem(nets.dense(2), 0.2), "lbp")
    assert result.trace[-1].upper == result.overall_upper.max()
    assert math.isclose(result.trace[-1].lower, result.overall_lower.max())
