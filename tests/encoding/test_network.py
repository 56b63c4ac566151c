"""The mixed-integer encoding: its points are the network's points, and its columns are bounded."""

from __future__ import annotations

import math

import nets
import numpy as np
import pytest
import torch
from encoding.piecewise import piecewise, prepared
from hypothesis import given, settings
from hypothesis import strategies as st

from lipcompare.programs.prepared import encode_rows
from lipcompare.witness import gradient_norms
from solvers.checks import violation


@settings(max_examples=25, deadline=None)
@given(network=piecewise(), eps=st.floats(0.01, 0.8), seed=st.integers(0, 1000), norm=st.sampled_from(["inf", "1"]))
def test_every_input_is_a_feasible_point_with_its_gradient_norm(network, eps: float, seed: int, norm: str) -> None:
    problem = nets.problem(network, eps, seed, norm=norm)
    encoding = encode_rows(prepared(problem), range(problem.rows))
    random = torch.Generator().manual_seed(seed)
    for _ in range(3):
        lower, upper = problem.box.interval
        x = (lower + torch.rand(lower.shape, generator=random, dtype=torch.float64) * (upper - lower))[0]
        norms = gradient_norms(network, problem.functionals[0], x, problem.norm)
        for row in range(problem.rows):
            start = encoding.start(x.numpy(), row)
            assert violation(encoding.program, start) is None
            assert math.isclose(-encoding.program.objective(start), float(norms[row]), rel_tol=1e-9, abs_tol=1e-9)
            np.testing.assert_array_equal(encoding.point(start), x.numpy())


@settings(max_examples=20, deadline=None)
@given(network=piecewise(), eps=st.floats(0.0, 0.8), seed=st.integers(0, 1000))
def test_columns_are_bounded_and_binaries_only_where_needed(network, eps: float, seed: int) -> None:
    problem = nets.problem(network, eps, seed)
    ready = prepared(problem)
    encoding = encode_rows(ready, [0])
    program = encoding.program
    assert np.isfinite(program.lower).all() and np.isfinite(program.upper).all()
    interval = ready.gradients.intervals[0]
    undecided = int(((interval.lower[0, 0] < 0) & (interval.upper[0, 0] > 0)).sum())
    gates = sum(len(g.columns) for g in encoding.gates.values())
    assert gates == int(ready.gates.unstable_count)
    assert gates <= int(program.integrality.sum()) <= gates + undecided


def test_a_pattern_of_a_kink_is_a_point_too() -> None:
    network = nets.kinked()
    problem = nets.problem(network, 0.5).example(0)
    problem = type(problem)(network, type(problem.box)(torch.tensor([[-1.0]]).double(), torch.tensor([[1.0]]).double()))
    encoding = encode_rows(prepared(problem), [0])
    both = {k: np.array([True, True]) for k in network.activations}
    start = encoding.start(np.zeros(1), 0, both)
    assert violation(encoding.program, start) is None
    assert -encoding.program.objective(start) == pytest.approx(2.0)
    assert encoding.pattern(start)[2].all()
