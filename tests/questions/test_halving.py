"""Boxes in which one input moves are halved until signs are proved."""

from __future__ import annotations

import nets
import numpy as np
import pytest
import torch
from questions.samples import entries_at, samples

from lipcompare import Box, Network, Problem
from lipcompare.network import Activate, Affine, Input, relu
from lipcompare.network.activations import smooth
from lipcompare.network.linear_maps import Dense
from lipcompare.questions import Direction, directional_bounds, jacobian_bounds, monotonicity


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
    seen = entries_at(problem, torch.lerp(lower.unsqueeze(1), upper.unsqueeze(1), line))
    assert (found.lower <= seen.min(1)).all() and (found.upper >= seen.max(1)).all()
    assert (found.lower >= whole.lower).all() and (found.upper <= whole.upper).all()
    np.testing.assert_array_equal(found.upper[2], whole.upper[2])
    undecided = [((b.lower < 0) & (b.upper > 0))[:2] for b in (whole, found)]
    changes = ((seen.min(1) < 0) & (seen.max(1) > 0))[:2]
    assert undecided[0].sum() > undecided[1].sum() and (undecided[1] & ~changes).sum() == 0


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
    seen = entries_at(problem, samples(problem))[..., 0]
    assert (answer.lower[..., 0] <= seen.min(1)).all() and (answer.upper[..., 0] >= seen.max(1)).all()
