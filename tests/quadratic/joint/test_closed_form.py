"""Multipliers in closed form, where nothing is left to eliminate."""

from __future__ import annotations

import nets
import torch
from quadratic.joint.programs import bound_of

from lipcompare import Network
from lipcompare.network import Affine
from lipcompare.network.linear_maps import Dense


def test_nothing_to_eliminate() -> None:
    """Gates that nothing depends on leave a matrix of zeros behind."""
    network = nets.dense(1, (3, 4, 4, 2))
    last = network.nodes[-1]
    assert isinstance(last, Affine)
    silent = Affine(last.parents, (Dense(torch.zeros(2, 4, dtype=torch.float64)),), last.bias)
    problem = nets.problem(Network((*network.nodes[:-1], silent), (3,), (2,)), 0.5, norm="2")
    for solve in (False, True):
        assert float(bound_of(problem, solve=solve).upper[0]) <= 1e-100
