"""The oracle itself, against brute force that shares nothing with it."""

from __future__ import annotations

import nets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lipcompare
from lipcompare import Box, Problem, Status
from lipcompare.methods.enumerate import Enumerate


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), eps=st.floats(0.05, 0.8), norm=st.sampled_from(["inf", "2", "1"]))
def test_equals_a_fine_grid_in_two_dimensions(seed: int, eps: float, norm: str) -> None:
    problem = nets.problem(nets.dense(seed, (2, 4, 3, 2)), eps, seed, norm=norm)
    result = lipcompare.bound(problem, Enumerate())
    assert result.status is Status.EXACT
    axis = torch.linspace(0, 1, 201, dtype=torch.float64)
    unit = torch.cartesian_prod(axis, axis)
    lower, upper = problem.box.interval
    x = lower + unit * (upper - lower)
    network = problem.network
    slopes = network.slopes(network.values(x))
    for row in range(2):
        grid = problem.norm.dual.of(network.pull_back(slopes, problem.functionals[0, row].expand(len(x), -1)))
        assert float(grid.max()) <= result.upper[0, row] * (1 + 1e-9)
    # No pattern beyond the free ones, and the same box again in quarters loses nothing.
    assert (result.upper <= nets.free_gate_maximum(problem).numpy() * (1 + 1e-9)).all()
    corner = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    middle = (lower + upper) / 2
    box = Box(torch.where(corner == 0, lower, middle), torch.where(corner == 0, middle, upper))
    parts = lipcompare.bound(Problem(network, box, problem.norm), Enumerate())
    np.testing.assert_allclose(parts.upper.max(0), result.upper[0], rtol=1e-9)


def test_a_region_without_interior_counts() -> None:
    box = Box(torch.tensor([[-1.0]]).double(), torch.tensor([[1.0]]).double())
    result = lipcompare.bound(Problem(nets.kinked(), box), Enumerate())
    assert result.status is Status.EXACT
    assert result.upper[0, 0] == pytest.approx(2.0) and result.lower[0, 0] == pytest.approx(2.0)
    assert result.witnesses is not None and result.witnesses.at_kink[0, 0]


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_a_point(norm: str) -> None:
    problem = nets.problem(nets.residual(5), 0.0, norm=norm)
    result = lipcompare.bound(problem, Enumerate())
    expected = nets.sampled_norms(problem, samples=1).numpy()
    np.testing.assert_allclose(result.upper, expected, rtol=1e-9)
    np.testing.assert_allclose(result.lower, expected, rtol=1e-9)


def test_refuses_what_is_too_large() -> None:
    result = lipcompare.bound(nets.problem(nets.dense(1, (8, 40, 40, 2)), 1.0), Enumerate())
    assert result.status is Status.UNSUPPORTED and "undecided neurons" in result.detail
    smooth = lipcompare.bound(nets.problem(nets.FAMILIES["sigmoid"](1), 0.1), Enumerate())
    assert smooth.status is Status.UNSUPPORTED


def test_out_of_time() -> None:
    problem = nets.problem(nets.dense(1, (6, 10, 6, 2)), 0.8)
    result = lipcompare.bound(problem, Enumerate(limit=40), time_limit=0.05)
    assert result.status is Status.TIME_LIMIT and np.isinf(result.upper).all()
    assert (result.lower > 0).all()
