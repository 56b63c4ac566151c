"""The paper's bound equals the linear program over all gate hulls with the recursion's own intervals (an identity that
holds for any network, and that a mistake on either side breaks)."""

from __future__ import annotations

import math

import nets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import solvers
from lipcompare.preactivation import Tightening, preactivation_bounds
from lipcompare.programs.prepared import encode_rows, prepare

PIECEWISE = sorted(f for f, make in nets.FAMILIES.items() if make(0).piecewise_linear)


def piecewise() -> st.SearchStrategy:
    """A piecewise linear network of any family."""
    return st.builds(
        lambda family, seed: nets.FAMILIES[family](seed), st.sampled_from(PIECEWISE), st.integers(0, 10**6)
    )


def hull_program(problem, row: int, *, coupled: bool) -> tuple[float, float]:
    """The linear bound of one row, and the value of the linear program over the hulls."""
    bounds = preactivation_bounds(problem.network, problem.box.interval, Tightening.CROWN)
    prepared = prepare(problem, bounds)
    program = encode_rows(prepared, [row], coupled=coupled).program.relaxed()
    solution = solvers.get("highs").solve(program)
    assert solution.status is solvers.SolveStatus.OPTIMAL
    return float(prepared.upper[row]), -solution.dual_bound


@settings(max_examples=20, deadline=None)
@given(network=nets.networks(), eps=st.floats(0.0, 0.6), seed=st.integers(0, 1000))
def test_p_inf(network, eps: float, seed: int) -> None:
    problem = nets.problem(network, eps, seed)
    for row in range(problem.rows):
        linear, program = hull_program(problem, row, coupled=False)
        assert math.isclose(linear, program, rel_tol=1e-6, abs_tol=1e-6)


@settings(max_examples=15, deadline=None)
@given(network=piecewise(), eps=st.floats(0.0, 0.6), seed=st.integers(0, 1000))
def test_the_forward_network_only_helps(network, eps: float, seed: int) -> None:
    problem = nets.problem(network, eps, seed)
    linear, program = hull_program(problem, 0, coupled=True)
    assert program <= linear + 1e-6 * (1 + linear)
    assert program >= float(nets.sampled_norms(problem)[0, 0]) * (1 - 1e-6) - 1e-6


@pytest.mark.parametrize("family", PIECEWISE)
def test_p_one_entry_by_entry(family: str) -> None:
    """For p = 1 the linear bound is the largest end of the recursion's intervals: a program per end agrees."""
    problem = nets.problem(nets.FAMILIES[family](11), 0.3, norm="1")
    bounds = preactivation_bounds(problem.network, problem.box.interval, Tightening.CROWN)
    prepared = prepare(problem, bounds)
    interval = prepared.gradients.intervals[0]
    ends = np.concatenate([interval.upper[0, 0].cpu().numpy(), -interval.lower[0, 0].cpu().numpy()])
    order = np.sort(ends)[::-1]
    if order[0] <= 0 or (len(order) > 1 and order[0] - order[1] < 1e-9 * order[0]):
        return
    # With `least` between the two largest ends only the largest is left in the program.
    program = encode_rows(prepared, [0], least=float((order[0] + order[1]) / 2), coupled=False).program.relaxed()
    solution = solvers.get("highs").solve(program)
    assert math.isclose(-solution.dual_bound, float(prepared.upper[0]), rel_tol=1e-6, abs_tol=1e-6)
