"""Multipliers in closed form, where nothing is left to eliminate."""

from __future__ import annotations

import nets
import torch
from quadratic.joint.programs import bound_of

from lipcompare import Network
from lipcompare.network import Affine
from lipcompare.network.linear_maps import Dense
from lipcompare.quadratic.joint.closed_form import _eliminated, closed_form


def test_nothing_to_eliminate() -> None:
    """Gates that nothing depends on leave a matrix of zeros behind."""
    network = nets.dense(1, (3, 4, 4, 2))
    last = network.nodes[-1]
    assert isinstance(last, Affine)
    silent = Affine(last.parents, (Dense(torch.zeros(2, 4, dtype=torch.float64)),), last.bias)
    problem = nets.problem(Network((*network.nodes[:-1], silent), (3,), (2,)), 0.5, norm="2")
    for solve in (False, True):
        assert float(bound_of(problem, solve=solve).upper[0]) <= 1e-100


def test_the_better_of_two_choices_is_taken() -> None:
    """Each by itself, for programs of which one choice is better for some and the other one for others."""
    firsts = []
    for seed in range(8):
        data = bound_of(nets.problem(nets.dense(seed, (3, 6, 6, 2)), 0.5), solve=False).data
        assert data is not None
        both, theta = _eliminated(
            torch.cat([data.cost] * 2), torch.cat([data.gates] * 2), torch.cat([data.mask] * 2), data.ranges
        )
        rho, chosen = closed_form(data)
        firsts.append(bool(both[0] < both[1]))
        assert float(rho) == float(both.min()) and torch.equal(chosen[0], theta[int(both.argmin())])
    assert any(firsts) and not all(firsts)
