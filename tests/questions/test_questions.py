"""Entries of the Jacobian, directional derivatives, monotonicity."""

from __future__ import annotations

import nets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lipcompare import Box, InvalidInput, Network, NormBall, Problem
from lipcompare.network import Activate, Affine, Input, relu
from lipcompare.network.activations import smooth
from lipcompare.network.linear_maps import Dense
from lipcompare.questions import Direction, directional_bounds, jacobian_bounds, monotonicity


def _samples(problem: Problem, count: int = 200) -> torch.Tensor:
    unit = torch.rand(
        1, count, problem.network.in_size, generator=torch.Generator().manual_seed(5), dtype=torch.float64
    )
    lower, upper = (v.unsqueeze(1) for v in problem.box.interval)
    return problem.box.clamp(lower + unit * (upper - lower))


def _entries(problem: Problem, points: torch.Tensor) -> np.ndarray:
    """(batch, samples, rows, inputs)."""
    network = problem.network
    slopes = {k: v.unsqueeze(2) for k, v in network.slopes(network.values(points)).items()}
    rows = problem.functionals.unsqueeze(1).expand(*points.shape[:2], -1, -1)
    result: np.ndarray = network.pull_back(slopes, rows).numpy()
    return result


@settings(max_examples=25, deadline=None)
@given(
    network=nets.networks(),
    eps=st.sampled_from([0.0, 0.1, 0.5]),
    bounding=st.sampled_from(["ibp", "lbp"]),
    ball=st.booleans(),
)
def test_entries_and_products_hold(network: Network, eps: float, bounding: str, ball: bool) -> None:
    center = torch.full((2, network.in_size), 0.4, dtype=torch.float64)
    box = NormBall.around(center, eps, "2" if ball else "inf")
    problem = Problem(network, box)
    seen = _entries(problem, _samples(problem))
    bounds = jacobian_bounds(problem, bounding)
    assert bounds.lower.shape == (2, network.out_size, network.in_size)
    assert (bounds.lower <= seen.min(1)).all() and (bounds.upper >= seen.max(1)).all()
    vectors = torch.randn(3, network.in_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    products = directional_bounds(problem, vectors, bounding)
    along = seen @ vectors.numpy().T
    assert (products.lower <= along.min(1)).all() and (products.upper >= along.max(1)).all()
    middle, radius = (bounds.upper + bounds.lower) / 2, (bounds.upper - bounds.lower) / 2
    reach = middle @ vectors.numpy().T + radius @ np.abs(vectors.numpy()).T
    assert (products.upper <= reach + 1e-9).all()


@pytest.mark.parametrize("kind", ["relu", "tanh"])
def test_boxes_with_one_moving_input_are_halved_until_signs_are_decided(kind: str) -> None:
    network = nets.dense(1, (4, 10, 10, 2), 0.0 if kind == "relu" else smooth.tanh())
    lower = torch.full((3, 4), 0.2, dtype=torch.float64)
    upper = lower.clone()
    lower[0, 1], upper[0, 1] = -1.0, 1.0
    lower[1, 3], upper[1, 3] = 0.0, 1.5
    lower[2], upper[2] = 0.1, 0.3  # four inputs move
    problem = Problem(network, Box(lower, upper))
    whole, found = jacobian_bounds(problem, halvings=0), jacobian_bounds(problem)
    line = torch.linspace(0, 1, 2001, dtype=torch.float64).reshape(1, -1, 1)
    seen = _entries(problem, torch.lerp(lower.unsqueeze(1), upper.unsqueeze(1), line))
    assert (found.lower <= seen.min(1)).all() and (found.upper >= seen.max(1)).all()
    assert (found.lower >= whole.lower).all() and (found.upper <= whole.upper).all()
    np.testing.assert_array_equal(found.upper[2], whole.upper[2])
    undecided = [((b.lower < 0) & (b.upper > 0))[:2] for b in (whole, found)]
    changes = ((seen.min(1) < 0) & (seen.max(1) > 0))[:2]
    assert undecided[0].sum() > undecided[1].sum() and (undecided[1] & ~changes).sum() == 0


def test_a_product_is_tighter_than_its_entries() -> None:
    problem = nets.problem(nets.dense(0, (5, 12, 12, 2)), 0.4)
    ones = torch.ones(1, 5, dtype=torch.float64)
    product, entries = directional_bounds(problem, ones), jacobian_bounds(problem)
    assert (product.upper[..., 0] < entries.upper.sum(-1) * (1 - 1e-3)).any()


def test_bad_questions_are_named() -> None:
    problem = nets.problem(nets.dense(0), 0.1)
    with pytest.raises(InvalidInput, match="Directions have shape"):
        directional_bounds(problem, torch.ones(2))
    with pytest.raises(InvalidInput, match="Unknown relaxation 'naive'"):
        jacobian_bounds(problem, "naive")
    with pytest.raises(InvalidInput, match="indices"):
        monotonicity(problem, [7])


def _shaped() -> Network:
    """Rises in input 0, falls in input 1, neither in input 2 (a bump), ignores input 3."""
    first = torch.tensor([[1.0, 0, 0, 0], [0, -2.0, 0, 0], [0, 0, 4.0, 0], [0, 0, -4.0, 0]], dtype=torch.float64)
    bias = torch.tensor([0.5, 1.0, 0.0, 0.0], dtype=torch.float64)
    last = torch.tensor([[1.0, 1.0, -1.0, -1.0]], dtype=torch.float64)
    nodes = (Input(4), Affine((0,), (Dense(first),), bias), Activate(1, relu(), 4), Affine((2,), (Dense(last),), None))
    return Network(nodes, (4,), (1,))


def test_monotonicity_of_a_known_function() -> None:
    box = Box(*(torch.full((1, 4), v, dtype=torch.float64) for v in (-1.0, 1.0)))
    answer = monotonicity(Problem(_shaped(), box))
    wanted = [Direction.INCREASING, Direction.DECREASING, Direction.NEITHER, Direction.CONSTANT]
    assert answer.directions[0, 0].tolist() == wanted
    rising, falling = answer.rising[0, 0, 2], answer.falling[0, 0, 2]
    assert rising[2] < 0 < falling[2] and answer.seen_upper[0, 0, 2] == 4 and answer.seen_lower[0, 0, 2] == -4
    assert answer.share(Direction.INCREASING).tolist() == [1, 0, 0, 1]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), name=st.sampled_from(["sigmoid", "softplus", "tanh"]), wide=st.booleans())
def test_monotone_networks_are_proved_monotone(seed: int, name: str, wide: bool) -> None:
    """Weights of one sign make a network increasing, whatever the box; bounds of single gates cannot lose that."""
    network = nets.dense(seed, (3, 5, 4, 2), smooth.TABLE[name]())
    nodes = tuple(
        Affine(n.parents, tuple(Dense(m.weight.abs()) for m in n.maps if isinstance(m, Dense)), n.bias)
        if isinstance(n, Affine)
        else n
        for n in network.nodes
    )
    network = Network(nodes, network.input_shape, network.output_shape)
    answer = monotonicity(nets.problem(network, 3.0 if wide else 0.1, batch=2))
    assert (answer.directions == Direction.INCREASING).all()


@settings(max_examples=20, deadline=None)
@given(network=nets.networks(), seed=st.integers(0, 100))
def test_answers_agree_with_samples(network: Network, seed: int) -> None:
    problem = nets.problem(network, 0.2, seed)
    answer = monotonicity(problem)
    seen = _entries(problem, _samples(problem))
    for row, feature in np.ndindex(answer.directions.shape[1:]):
        known, values = answer.directions[0, row, feature], seen[0, :, row, feature]
        if known in (Direction.INCREASING, Direction.CONSTANT):
            assert values.min() >= -1e-12
        if known in (Direction.DECREASING, Direction.CONSTANT):
            assert values.max() <= 1e-12
        if known is Direction.NEITHER:
            assert answer.seen_lower[0, row, feature] < 0 < answer.seen_upper[0, row, feature]


def test_lines_are_halved_until_the_sign_is_proved() -> None:
    """A sum of steps that only rise: on the whole line interval bounds mix them up, on a piece each is alone."""
    first = torch.tensor([[1.0, 0.5]] * 4, dtype=torch.float64)
    bias = torch.tensor([0.6, 0.2, -0.2, -0.6], dtype=torch.float64)
    last = torch.tensor([[1.0, -0.9, 1.2, -1.0]], dtype=torch.float64)
    nodes = (Input(2), Affine((0,), (Dense(first),), bias), Activate(1, relu(), 4), Affine((2,), (Dense(last),), None))
    network = Network(nodes, (2,), (1,))
    lower, upper = torch.tensor([[-1.0, 0.1]] * 2), torch.tensor([[1.0, 0.1], [1.0, 0.2]])
    problem = Problem(network, Box(lower.double(), upper.double()))
    loose = directional_bounds(problem, torch.tensor([[1.0, 0.0]]))
    assert (loose.lower < 0).all() and (loose.upper > 0).all()
    answer = monotonicity(problem, [0])
    assert answer.directions[0, 0, 0] is Direction.INCREASING
    assert answer.directions[1, 0, 0] is not Direction.INCREASING  # two inputs move: not a line
    seen = _entries(problem, _samples(problem))[..., 0]
    assert (answer.lower[..., 0] <= seen.min(1)).all() and (answer.upper[..., 0] >= seen.max(1)).all()
