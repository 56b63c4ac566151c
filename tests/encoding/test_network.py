"""The mixed-integer encoding: its points are the network's points, and its columns are bounded."""

from __future__ import annotations

import math

import nets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import solvers
from lipcompare.encoding import builder
from lipcompare.encoding.builder import Expression, OutOfRange, ProgramBuilder, sparse_matrix
from lipcompare.network.linear_maps import Conv, Dense, Scale, Transposed
from lipcompare.preactivation import Tightening, preactivation_bounds
from lipcompare.programs.entries import entry_intervals
from lipcompare.programs.preactivation import Refinement, refined_bounds
from lipcompare.programs.prepared import encode_rows, prepare
from lipcompare.witness import gradient_norms
from solvers.checks import violation

PIECEWISE = sorted(f for f, make in nets.FAMILIES.items() if make(0).piecewise_linear)


def piecewise() -> st.SearchStrategy:
    """A piecewise linear network of any family."""
    return st.builds(
        lambda family, seed: nets.FAMILIES[family](seed), st.sampled_from(PIECEWISE), st.integers(0, 10**6)
    )


def prepared(problem, tightening=Tightening.CROWN):
    return prepare(problem, preactivation_bounds(problem.network, problem.box.interval, tightening))


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


def test_sparse_matrices_of_maps() -> None:
    for family in PIECEWISE:
        for node in nets.FAMILIES[family](3).nodes:
            for linear in getattr(node, "maps", ()):
                np.testing.assert_allclose(sparse_matrix(linear).toarray(), linear.matrix().numpy())


def test_expressions() -> None:
    builder = ProgramBuilder()
    columns = builder.add_columns(np.array([-1.0, 0.0]), np.array([2.0, 3.0]))
    expression = Expression.columns(columns, np.array([2.0, -1.0])) + Expression.of(np.array([1.0, 0.0]))
    low, high = builder.reach(expression)
    np.testing.assert_allclose(low, [-1, -3], atol=1e-12)
    np.testing.assert_allclose(high, [5, 0], atol=1e-12)
    with pytest.raises(OutOfRange):
        builder.add_columns(np.array([-np.inf]), np.array([0.0]))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), eps=st.floats(0.1, 0.6))
def test_refined_bounds_hold_and_are_ordered(seed: int, eps: float) -> None:
    problem = nets.problem(nets.dense(seed, (3, 5, 4, 2)), eps, seed)
    network, box = problem.network, problem.box.interval
    solver = solvers.get("highs")
    crown = refined_bounds(network, box, Refinement.ALPHA_CROWN, solver)
    random = torch.Generator().manual_seed(seed)
    unit = torch.rand(500, network.in_size, generator=random, dtype=torch.float64)
    values = network.values(box.lower + unit * (box.upper - box.lower))
    widths = [sum(float((v.upper - v.lower).sum()) for v in crown.values())]
    for refinement in (Refinement.LP, Refinement.MILP):
        tight = refined_bounds(network, box, refinement, solver)
        for k, z in tight.items():
            seen = values[network.nodes[k].parents[0]]
            assert bool((seen >= z.lower).all() and (seen <= z.upper).all())
            assert bool((z.lower >= crown[k].lower - 1e-12).all() and (z.upper <= crown[k].upper + 1e-12).all())
        widths.append(sum(float((v.upper - v.lower).sum()) for v in tight.values()))
    assert widths[0] >= widths[1] >= widths[2] - 1e-5
    signs = refined_bounds(network, box, Refinement.SIGNS, solver)
    exact = refined_bounds(network, box, Refinement.MILP, solver)
    for k, z in signs.items():
        stable = (z.lower > 0) | (z.upper < 0)
        truly = (exact[k].lower > 1e-5) | (exact[k].upper < -1e-5)
        assert bool((stable | ~truly).all()), "a neuron that never changes its sign must be found"


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_entry_intervals_hold_every_sampled_gradient(seed: int) -> None:
    problem = nets.problem(nets.dense(seed, (4, 8, 8, 2)), 0.5, seed)
    ready = prepared(problem)
    tight = entry_intervals(ready, 0)
    linear = ready.gradients.intervals[0]
    assert bool((tight.lower >= linear.lower[0, 0] - 1e-12).all() and (tight.upper <= linear.upper[0, 0] + 1e-12).all())
    random = torch.Generator().manual_seed(seed)
    lower, upper = problem.box.interval
    x = lower + torch.rand(400, 4, generator=random, dtype=torch.float64) * (upper - lower)
    network = problem.network
    gradient = network.pull_back(network.slopes(network.values(x)), problem.functionals[0, 0].expand(400, -1))
    assert bool((gradient >= tight.lower - 1e-9).all() and (gradient <= tight.upper + 1e-9).all())


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("spatial", [(7,), (5, 6), (3, 4, 5)])
def test_the_matrix_of_a_convolution(spatial: tuple[int, ...], groups: int) -> None:
    random, rank = torch.Generator().manual_seed(0), len(spatial)
    weight = torch.randn(4, 2, *(2, 3, 2)[:rank], generator=random, dtype=torch.float64)
    weight[1, 0] = 0
    steps = [(2, 1, 1)[:rank], (1, 2, 0)[:rank], (1, 2, 1)[:rank]]
    m = Conv(weight, (2 * groups, *spatial), *steps, groups)
    matrix = sparse_matrix(m)
    np.testing.assert_array_equal(matrix.toarray(), m.matrix().numpy())
    assert matrix.nnz == np.count_nonzero(m.matrix().numpy())
    np.testing.assert_array_equal(sparse_matrix(Transposed(m)).toarray(), m.matrix().numpy().T)


@pytest.mark.parametrize(
    "linear",
    [Dense(torch.ones(2, 50).double()), Dense(torch.ones(3, 2).double(), 4), Scale(torch.arange(60.0).double())],
)
def test_no_block_of_units_is_larger_than_allowed(monkeypatch, linear):
    # The unit vectors of 20,000 inputs took 3.2 GB for a layer of ten outputs.
    asked = []
    monkeypatch.setattr(builder, "BLOCK_ENTRIES", 600)
    forward = type(linear).forward
    monkeypatch.setattr(type(linear), "forward", lambda self, x: asked.append(x.numel()) or forward(self, x))
    matrix = sparse_matrix(linear).toarray()
    assert max(asked, default=0) <= 600
    monkeypatch.undo()
    np.testing.assert_array_equal(matrix, linear.matrix().numpy())
