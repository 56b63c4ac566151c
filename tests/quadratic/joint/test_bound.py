"""All rows at once: the joint program against points, patterns and LipSDP."""

from __future__ import annotations

import dataclasses
from typing import Any
from unittest import mock

import nets
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quadratic.joint.programs import bound_of

import lipcompare
from lipcompare import Network, Norm, Problem, Space
from lipcompare.jacobian import RELAXATIONS
from lipcompare.network import Affine
from lipcompare.network.linear_maps import Dense
from lipcompare.preactivation import Tightening
from lipcompare.propagation import propagate
from lipcompare.quadratic.joint import joint_bound
from lipcompare.quadratic.joint.program import slack_matrix
from lipcompare.quadratic.program import GateMaps, gate_maps
from lipcompare.testing import exact


@settings(max_examples=6, deadline=None)
@given(network=nets.networks(), eps=st.sampled_from([0.0, 0.2, 1.0]))
def test_no_point_has_a_larger_singular_value(network: Network, eps: float) -> None:
    problem = nets.problem(network, eps, batch=2, norm="2")
    unit = torch.rand(2, 100, network.in_size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    lower, upper = (v.unsqueeze(1) for v in problem.box.interval)
    points = lower + unit * (upper - lower)
    slopes = {k: v.unsqueeze(2) for k, v in network.slopes(network.values(points)).items()}
    rows = problem.functionals.unsqueeze(1).expand(2, 100, -1, -1)
    seen = torch.linalg.matrix_norm(network.pull_back(slopes, rows), ord=2).amax(1)
    solved, closed = bound_of(problem), bound_of(problem, solve=False)
    assert bool((solved.upper >= seen).all() and (closed.upper >= seen).all())
    assert bool((solved.upper <= closed.upper * (1 + 1e-4)).all())
    if eps == 0.0 and bool((solved.upper > 0).all()) and network.piecewise_linear:
        torch.testing.assert_close(solved.upper, seen, rtol=1e-4, atol=1e-9)


def test_one_row_is_lipsdp() -> None:
    """The same program read from the other end: local slopes, p = 2."""
    problem = nets.problem(nets.dense(3, (3, 6, 6, 1)), 0.6, norm="2")
    other = lipcompare.bound(problem, "lipsdp")
    if other.status is lipcompare.Status.UNAVAILABLE:
        pytest.skip("no conic solver")
    assert float(bound_of(problem).upper[0]) == pytest.approx(other.overall_upper[0], rel=1e-3)


def test_multipliers_that_are_not_feasible_are_not_believed() -> None:
    """What is certified holds whatever the multipliers are: half of the optimal ones prove less, not more."""
    from lipcompare.quadratic.joint.bound import _certified

    found = bound_of(nets.problem(nets.dense(5, (3, 6, 6, 2)), 0.8, norm="2"))
    assert found.data is not None and found.theta is not None
    rho = found.upper.square() / found.data.scale
    for rho_share, theta_share in ((0.9, 1.0), (1.0, 0.5), (0.5, 1.0)):
        wrong = _certified(found.data, rho_share * rho, theta_share * found.theta)
        lowest = torch.linalg.eigvalsh(slack_matrix(found.data, rho_share * rho, theta_share * found.theta))[:, 0]
        assert bool((lowest < 0).all()) and bool((wrong >= found.upper * (1 - 1e-6)).all())


def test_everywhere_it_is_the_global_constant() -> None:
    """A network with one layer of gates of one sign each: |x| has the constant 1, and the program knows it."""
    problem = Problem(nets.dense(0, (2, 4, 4, 2)), Space.of(2), "2")  # type: ignore[arg-type]
    local = nets.problem(problem.network, 0.5, norm="2")
    everywhere, here = bound_of(problem), bound_of(local)
    naive = lipcompare.bound(problem, "naive").overall_upper[0]
    assert float(here.upper[0]) <= float(everywhere.upper[0]) * (1 + 1e-6) and float(everywhere.upper[0]) < 3 * naive


@pytest.mark.parametrize("scale", [1e-40, 1e-85, 1e-90])
def test_squares_that_underflow_are_no_zeros(scale: float) -> None:
    """Two layers of weights of that size: the bound was 0 where the squares of the Jacobian's entries are."""
    b = nets.Builder(2, 0)
    for rows in ([[1.0, 2.0], [3.0, -1.0]], [[1.0, 1.0], [0.5, -1.0]]):
        b.nodes.append(Affine((b.last,), (Dense(torch.tensor(rows, dtype=torch.float64) * scale),), None))
        if b.last == 1:
            b.activate()
    problem = Problem.around(b.build(), 0.0, 1.0, norm="2")
    for solve in (False, True):
        assert float(bound_of(problem, solve=solve).upper[0]) >= 4.72 * scale**2
    zero = dataclasses.replace(problem, functionals=torch.zeros_like(problem.functionals))
    assert float(bound_of(zero).upper[0]) == 0.0


def _cancelling(seed: int) -> Problem:
    """Active neurons whose terms of the gradient cancel, but for a part in 10^12."""
    random = torch.Generator().manual_seed(seed)
    first, last = (torch.randn(*size, generator=random, dtype=torch.float64) for size in ((8, 1), (1, 8)))
    last[0, -1] = 1e-12 - (last[0, :-1] @ first[:-1, 0]) / first[-1, 0]
    b = nets.Builder(1, 0)
    b.nodes.append(Affine((0,), (Dense(first),), torch.full((8,), 100.0, dtype=torch.float64)))
    b.activate()
    b.nodes.append(Affine((b.last,), (Dense(last),), None))
    return Problem.around(b.build(), 0.0, 1.0, norm="2")


def _bounds_hold() -> bool:
    problems = [_cancelling(seed) for seed in range(6)]
    return all(exact.truth(p).admits_upper(0, Norm.TWO, float(bound_of(p, solve=False).upper[0])) for p in problems)


def test_the_error_of_the_entries_is_needed() -> None:
    assert _bounds_hold()
    with mock.patch("lipcompare.quadratic.joint.program.squares_error", lambda entries, error: 0 * error.sum(-1)):
        assert not _bounds_hold()


def test_the_error_of_the_gates_is_in_the_bound() -> None:
    problem = nets.problem(nets.dense(3, (3, 5, 4, 2)), 0.5, norm="2")

    def bound(error: float) -> float:
        def wrong(*given: Any) -> GateMaps:
            maps = gate_maps(*given)
            return dataclasses.replace(maps, gate_error=torch.full_like(maps.gate_error, error))

        with mock.patch("lipcompare.quadratic.joint.bound.gate_maps", wrong):
            return float(bound_of(problem, solve=False).upper[0])

    assert bound(1e-2) > bound(0.0) * (1 + 1e-3)


def test_numbers_out_of_range_prove_nothing() -> None:
    problem = nets.problem(nets.dense(3, (3, 5, 4, 2)), 0.5, norm="2")
    large = dataclasses.replace(problem, functionals=problem.functionals * 1e200)
    for solve in (False, True):
        assert bound_of(large, solve=solve).upper.tolist() == [torch.inf]


def test_a_program_that_does_not_fit_in_memory_is_not_made() -> None:
    problem = nets.problem(nets.dense(3, (3, 5, 4, 2)), 0.5, norm="2")
    with mock.patch("lipcompare.quadratic.joint.bound.gate_maps", side_effect=AssertionError):
        linear = propagate(problem, Tightening.CROWN, RELAXATIONS["lbp"], joint=False, memory=2**30)
        found = joint_bound(problem.network, linear.gates, problem.functionals, linear.gradients, memory=1000)
    assert found.upper.tolist() == [torch.inf] and found.data is None
