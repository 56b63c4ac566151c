"""Interval arithmetic through the network, at the ends of the range of numbers."""

from __future__ import annotations

from fractions import Fraction

import nets
import pytest
import torch

from lipcompare.network import Affine, Input, Network
from lipcompare.network.activations import LeakyReLU
from lipcompare.network.graph import Activate
from lipcompare.network.interval import Interval
from lipcompare.network.linear_maps import Dense
from lipcompare.preactivation import Tightening, preactivation_bounds
from lipcompare.preactivation.interval import interval_bounds, interval_values, pass_errors


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_what_underflows_is_multiplied_by_the_next_weight() -> None:
    """-1e-200 from the input, a slope of 1e-200 and a weight of 1e300 make -1e-100, and half of that is the bias."""
    nodes = (
        Input(1),
        Affine((0,), (Dense(row(1e-200)),), None),
        Activate(1, LeakyReLU(1e-200), 1),
        Affine((2,), (Dense(row(1e300)),), row(5e-101)[0]),
        Activate(3, LeakyReLU(), 1),
        Affine((4,), (Dense(row(1.0)),), None),
    )
    bounds = interval_bounds(Network(nodes, (1,), (1,)), Interval(row(-1.0), row(-1.0)))[4]
    truth = -(Fraction(1e-200) ** 2) * Fraction(1e300) + Fraction(5e-101)
    assert Fraction(float(bounds.lower)) <= truth <= Fraction(float(bounds.upper))


def test_coefficients_that_underflow_on_the_way_meet_large_values() -> None:
    """A weight and a slope of 1e-200 each make 0 on the way back to values of 1e200."""
    nodes = (
        Input(1),
        Affine((0,), (Dense(row(1e200)),), row(-2e200)[0]),
        Activate(1, LeakyReLU(1e-200), 1),
        Affine((2,), (Dense(row(-1e-200)),), row(-2e-200)[0]),
        Activate(3, LeakyReLU(), 1),
        Affine((4,), (Dense(row(1.0)),), None),
    )
    box = Interval(row(-1.0), row(1.0))
    bounds = preactivation_bounds(Network(nodes, (1,), (1,)), box, Tightening.CROWN)[4]
    assert float(bounds.lower) < -0.99e-200
    assert float(bounds.upper) > 0.99e-200


def test_what_underflows_is_multiplied_by_a_steep_side() -> None:
    """Two weights of 1e-170 and a slope of -1e200 make -1e-140, which passes back to the input round."""
    nodes = (
        Input(1),
        Affine((0,), (Dense(row(1e-170)),), None),
        Activate(1, LeakyReLU(), 1),
        Affine((2,), (Dense(row(-1e-170)),), None),
        Activate(3, LeakyReLU(-1e200), 1),
        Affine((4,), (Dense(row(1.0)),), None),
        Activate(5, LeakyReLU(), 1),
        Affine((6,), (Dense(row(1.0)),), None),
    )
    network, box = Network(nodes, (1,), (1,)), Interval(row(0.5), row(1.0))
    bounds = interval_bounds(network, box)
    bounds[4] = Interval(bounds[4].lower, row(0.0))  # as where its sign was proved
    errors = pass_errors(network, box, bounds)
    assert float(errors[6]) > 1e-140 * torch.finfo(torch.float64).eps


@pytest.mark.parametrize("family", sorted(nets.FAMILIES))
def test_values_of_points_lie_inside(family: str) -> None:
    problem = nets.problem(nets.FAMILIES[family](3), 0.3, batch=2)
    network, (lower, upper) = problem.network, problem.box.interval
    bounds, outputs = interval_values(network, problem.box.interval)
    share = torch.rand(20, *lower.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    share[:2] = torch.stack([torch.zeros_like(lower), torch.ones_like(lower)])
    values = network.values(lower + share * (upper - lower))
    for (low, high), value in [(outputs, values[-1])] + [
        (bounds[k], values[network.nodes[k].parents[0]]) for k in network.activations
    ]:
        assert bool(((low <= value) & (value <= high)).all())
