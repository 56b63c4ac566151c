"""Monotonicity: what is proved holds at samples, and what is refuted has its points."""

from __future__ import annotations

import nets
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from questions.samples import entries_at, samples

from lipcompare import Box, Network, Problem
from lipcompare.network import Activate, Affine, Input, relu
from lipcompare.network.activations import smooth
from lipcompare.network.linear_maps import Dense
from lipcompare.questions import Direction, monotonicity


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
    seen = entries_at(problem, samples(problem))
    for row, feature in np.ndindex(answer.directions.shape[1:]):
        known, values = answer.directions[0, row, feature], seen[0, :, row, feature]
        if known in (Direction.INCREASING, Direction.CONSTANT):
            assert values.min() >= -1e-12
        if known in (Direction.DECREASING, Direction.CONSTANT):
            assert values.max() <= 1e-12
        if known is Direction.NEITHER:
            assert answer.seen_lower[0, row, feature] < 0 < answer.seen_upper[0, row, feature]
